"""`torpor completion`: let the shell complete commands, options and names of machines."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from .._cli import COMPLETING
from .._errors import TorporError
from ._console import note, single_command, write

SHELLS = ("bash", "zsh", "fish")

app = single_command()


@app.command()
def completion(
    shell: Annotated[
        str | None,
        typer.Argument(metavar="bash|zsh|fish", help="Your shell; by default that of SHELL."),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write it where the shell looks for it, instead of printing it.")
    ] = False,
) -> None:
    """Let Tab complete commands, options, and the names of your machines, which the server is asked for.

    [bold]torpor completion --install[/bold]  for the shell that you use, from its next start on

    [bold]eval "$(torpor completion bash)"[/bold]  for this shell only
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    if chosen not in SHELLS:
        raise TorporError(
            f"There is no completion for {chosen!r}." if chosen else "SHELL does not say which shell this is.",
            hint=f"Name one of {', '.join(SHELLS)}: torpor completion bash",
        )
    script = get_completion_script(prog_name="torpor", complete_var=COMPLETING, shell=chosen) + "\n"
    if not install:
        write(script, sys.stdout)
        return
    path = _path_of(chosen)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")
    except OSError as error:
        raise TorporError(f"{path} cannot be written: {error.strerror or error}.") from None
    note(f"Wrote {path}. It works in the next {chosen} that you start.")
    if chosen == "zsh":
        note("If it does not, put this into ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit")
    if chosen == "bash":
        note('If it does not, put this into ~/.bashrc: eval "$(torpor completion bash)"')


def _path_of(shell: str) -> Path:
    """Where a shell looks for completions of its user, without a change to its start-up file."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    match shell:
        case "bash":
            return data / "bash-completion" / "completions" / "torpor"
        case "fish":
            return config / "fish" / "completions" / "torpor.fish"
        case _:
            return home / ".zfunc" / "_torpor"
