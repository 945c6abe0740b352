"""`torpor repl`: talk to a machine line by line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._cli import explain
from .._errors import MachineNotFound, TorporError
from .._machine import Machine
from ._console import client, note, single_command
from ._execution import Screen, watch
from ._input import is_complete, next_indent

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

app = single_command()


@app.command()
def repl(
    machine: Annotated[
        str | None, typer.Argument(metavar="[MACHINE]", help="The machine's name; without one, a new machine.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-t", metavar="SECONDS", help="End each input after so much running time."),
    ] = None,
) -> None:
    """Talk to a machine line by line, as to Python itself.

    Enter runs what is complete; after an indented block an empty line does. Esc then Enter always adds a line.

    Ctrl-C ends what runs, Ctrl-D leaves: the machine lives on, and so does what it runs.
    """
    if not sys.stdin.isatty():
        raise TorporError("There is no terminal to talk on.", hint="To run code from a pipe: torpor run -m MACHINE")
    with client() as torpor:
        target = torpor.machine(machine, create=False) if machine else torpor.new_machine()
        if machine is not None:
            target.detail()
        note(f"Machine {target.name} at {torpor.url}. Ctrl-C ends what runs, Ctrl-D leaves.")
        _talk(target, timeout)
    note(f"The machine lives on. To come back: torpor repl {target.name}")


def _talk(machine: Machine, timeout_seconds: float | None) -> None:
    session = _session()
    while True:
        try:
            code = session.prompt().rstrip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if not code:
            continue
        screen = Screen()
        try:
            watch(machine, machine.stream(code, timeout_seconds=timeout_seconds, queue=True), screen)
        except KeyboardInterrupt:
            note(f"\nIt runs on. To end it: torpor interrupt {machine.name}")
        except MachineNotFound:
            raise
        except TorporError as error:
            explain(error)
        screen.end_line()


def _session() -> PromptSession[str]:
    from prompt_toolkit import PromptSession  # noqa: PLC0415 - slow to import, and no other command needs it
    from prompt_toolkit.history import FileHistory  # noqa: PLC0415
    from prompt_toolkit.lexers import PygmentsLexer  # noqa: PLC0415

    return PromptSession(
        ">>> ",
        multiline=True,
        prompt_continuation="... ",
        key_bindings=_bindings(),
        history=FileHistory(str(_history_file())),
        lexer=PygmentsLexer.from_filename("input.py"),
        reserve_space_for_menu=0,
    )


def _bindings() -> KeyBindings:
    from prompt_toolkit.enums import DEFAULT_BUFFER  # noqa: PLC0415
    from prompt_toolkit.filters import has_focus  # noqa: PLC0415
    from prompt_toolkit.key_binding import KeyBindings  # noqa: PLC0415

    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_complete(buffer.text) and not buffer.document.text_after_cursor.strip():
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + next_indent(buffer.document.text_before_cursor))

    @bindings.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def _escape_enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        buffer.insert_text("\n" + next_indent(buffer.document.text_before_cursor))

    return bindings


def _history_file() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or ""
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    path = base / "torpor" / "repl_history"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    return path
