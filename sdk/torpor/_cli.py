"""The command `torpor`: loads commands from the entry points in the group `torpor.commands`, only those it needs.

Each entry point is a Typer app. One with a single command becomes `torpor NAME`, any other `torpor NAME COMMAND`.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ._commands._hints import hint_for
from ._commands._sources import help_of
from ._errors import TorporError
from ._terminal.safe_text import plain

GROUP = "torpor.commands"
SDK = "torpor"
TROUBLE = 3
"""Exit status when Torpor could not do it; 1 is for an error of the code that ran, 2 for a wrong command line."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell gives it to a process that SIGINT ended."""

COMPLETING = "_TORPOR_COMPLETE"
"""A variable of the environment: the shell wants completions; see `torpor completion`."""

_PANELS = {
    "Machines": ("new", "ls", "show", "set", "tag", "sleep", "sync", "rm"),
    "Code": ("run", "repl", "exec", "log", "output", "interrupt"),
    "Files": ("cp", "files", "install"),
    "Back, and aside": ("snapshots", "fork", "rollback", "undo", "pin", "unpin", "recover", "debug"),
    "You": ("login", "whoami", "key", "completion"),
    "Language models": ("mcp",),
    "Servers": ("serve", "doctor", "runtime", "fsck", "keys"),
}
_OTHERS = "More"
_ORDER = tuple(name for names in _PANELS.values() for name in names)
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}


@cache
def installed() -> dict[str, EntryPoint]:
    """The commands of all installed distributions, not loaded yet. Another's command goes before one of the SDK's."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=_is_from_here, reverse=True)}


def _is_from_here(entry: EntryPoint) -> bool:
    return entry.module.partition(".")[0] == SDK


class Commands(TyperGroup):
    """The commands that are installed. A broken one says why, and leaves the others alone."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, the daily ones first."""
        names = installed().keys()
        return [name for name in _ORDER if name in names] + sorted(names - set(_ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load one command; None if there is none of this name."""
        found = installed().get(cmd_name)
        if found is None:
            return None
        return (_listed(found) if self._listing else None) or _load(found)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """List the commands. That loads none whose sentence can be read without."""
        self._listing = True
        self.help = _paragraphs(self.help or "")
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete the name of a command. That loads none, as for the list."""
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that is to run. For one that there is not, `click` proposes those with a name like it."""
        self._listing = False
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what Torpor says is one sentence and a hint, never a traceback. Ctrl-C just ends it."""
        try:
            return super().invoke(ctx)
        except TorporError as error:
            explain(error)
            raise typer.Exit(TROUBLE) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _load(entry: EntryPoint) -> Any:
    try:
        loaded = entry.load()
        command: Any = get_command(loaded)
    except Exception as error:
        command = get_command(_broken(entry, error))
    command.name = entry.name
    command.rich_help_panel = _panel(entry.name)
    _reflow(command)
    return command


def _reflow(command: Any) -> None:
    """Give a command, and those below it, help with each paragraph on one line."""
    command.help = _paragraphs(command.help or "")
    for below in getattr(command, "commands", {}).values():
        _reflow(below)


def _listed(entry: EntryPoint) -> Any:
    """A command with its help alone, read from its source; None if that is not as expected."""
    help_text = help_of(entry)
    if help_text is None:
        return None
    sentence, full_stop, _ = _paragraphs(help_text).partition("\n")[0].partition(". ")
    return TyperCommand(
        entry.name, help=sentence + full_stop.strip(), rich_markup_mode="rich", rich_help_panel=_panel(entry.name)
    )


def _paragraphs(text: str) -> str:
    """Each paragraph on one line, for the terminal to break as wide as it is."""
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in text.split("\n\n"))


def _panel(name: str) -> str:
    return _PANEL_OF.get(name, _OTHERS)


def _broken(entry: EntryPoint, error: Exception) -> typer.Typer:
    reason = f"{type(error).__name__}: {error}"
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(
        help=f"(cannot be loaded: {reason})",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def broken() -> None:
        raise TorporError(
            f"The command `{entry.name}` cannot be loaded: {reason}",
            hint=f"It comes from {entry.value} of the distribution {entry.dist.name if entry.dist else 'unknown'}.",
        )

    return app


def explain(error: TorporError) -> None:
    """Write an error to standard error: its sentence, then what to do."""
    text = f"torpor: {error.message}"
    if hint := hint_for(error):
        text += f"\n        {hint}"
    typer.echo(plain(text) if sys.stderr.isatty() else text, err=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"torpor {version('torpor')}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


@app.callback()
def torpor(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Python machines that are always there.

    A machine keeps its variables, files and threads for ever. Nobody starts or stops it:

    [bold]torpor new --name analysis[/bold]  makes one; without a name of yours, it gets one

    [bold]torpor run -m analysis -c 'a = 3'[/bold]

    [bold]torpor run -m analysis -c 'a + 5'[/bold]  prints 8, now or in two years

    [bold]torpor repl analysis[/bold]  talks to it line by line

    The server and the key are those in TORPOR_URL and TORPOR_API_KEY, or those that `torpor serve` saved. Each command
    has a `--help` with examples. In a pipe output is plain, and with --json it is JSON.
    """


def main() -> None:
    """The console script."""
    if COMPLETING in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # noqa: PLC0415 - only a shell needs it

        completion_init()
    sys.exit(app())
