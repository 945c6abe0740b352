"""`torpor run`: run code on a machine."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .._cli import INTERRUPTED
from .._errors import TorporError
from .._result import Result
from .._terminal.screen import Screen, exit_status
from ._console import Json, TimeoutOption, client, note, single_command, write_json
from ._execution import watch
from ._machine_names import machine_names
from ._own_input import own_input

app = single_command()


@app.command()
def run(
    *,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A file of Python; `-` is standard input.")] = None,
    code: Annotated[str | None, typer.Option("-c", "--code", metavar="CODE", help="Python to run.")] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            "-m",
            metavar="MACHINE",
            help="Where to run it; else on a new machine.",
            envvar="TORPOR_MACHINE",
            autocompletion=machine_names,
        ),
    ] = None,
    timeout: TimeoutOption = math.inf,
    queue: Annotated[bool, typer.Option("--queue", help="If something else runs there, wait for it.")] = False,
    interrupt: Annotated[bool, typer.Option("--interrupt", help="If something else runs there, end it.")] = False,
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write what is plotted into this folder, as PNG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run Python on a machine and show what it prints, as it prints it. The last expression is shown too.

    [bold]torpor run -c 'import sys; sys.version'[/bold]  on a new machine

    [bold]torpor run -m analysis script.py[/bold]  on that one, with all that it knows

    [bold]echo 'a + 5' | torpor run -m analysis[/bold]

    [bold]torpor run -m analysis -c 'import sys; sum(map(int, sys.stdin))' < numbers.txt[/bold]

    What the code of a file or of -c reads, as `input()` does, comes from standard input: you are asked, or what is
    piped in is read. Where the code itself comes from there, it has nothing to read.

    Ctrl-C ends the code, and its machine lives on.

    The exit status is the code's: that of its own `sys.exit(4)`, 1 if it ended in an error, 130 if Ctrl-C ended it. It
    is 2 for a wrong command line, and 3 if Torpor could not run it.
    """
    source = _source(file, code)
    own = own_input() if code is not None or file not in (None, "-") else None
    given, may_follow = ("", False) if own is None else own.first()
    with client() as torpor:
        target = torpor.machine(machine, create=False) if machine else torpor.new_machine()
        if machine is None and not as_json:
            note(f"[new machine: {target.name}]")
        stream = target.stream(
            source,
            timeout_seconds=timeout,
            queue=queue,
            interrupt=interrupt,
            timings=as_json,
            stdin=given or None,
            stdin_open=may_follow,
        )
        try:
            screen = None if as_json else Screen(target.name, pictures)
            result, interrupted = watch(target, stream, screen, source=own, given=given)
        except KeyboardInterrupt:
            note(f"\nIt runs on. To end it: torpor interrupt {target.name}")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        write_json(as_fields(result))
    if interrupted and not result.ok:
        raise typer.Exit(INTERRUPTED)
    leave_with(result)


def leave_with(result: Result) -> None:
    """End with the status that the code would have given a process of its own."""
    if result.error is not None and (status := exit_status(result.error)[0]) != 0:
        raise typer.Exit(status)


def _source(file: str | None, code: str | None) -> str:
    if code is not None:
        if file is not None:
            raise TorporError("There is both a file and -c; only one can run.")
        return code
    if file is None and sys.stdin.isatty():
        raise TorporError("There is no code to run.", hint="Name a file, or give code with -c; or try `torpor repl`.")
    if file is None or file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise TorporError(f"{file} cannot be read: {error.strerror}.", hint="To run code itself, use -c.") from None
    except UnicodeDecodeError:
        raise TorporError(f"{file} is not UTF-8 text.") from None


def as_fields(result: Result) -> dict[str, Any]:
    """A result as JSON has it."""
    error = result.error
    return {
        "machine_name": result.machine_name,
        "instruction_seq": result.seq,
        "value": result.value,
        "data": dict(result.data),
        "error": None
        if error is None
        else {"name": error.name, "message": error.message, "traceback": list(error.traceback)},
        "stdout": result.stdout,
        "stderr": result.stderr,
        "displays": [{"data": display.data, "metadata": display.metadata} for display in result.displays],
        "notices": [
            {"code": notice.code, "message": notice.message, "seqs": list(notice.seqs)} for notice in result.notices
        ],
        "runtime_ms": result.runtime_ms,
        "timings": dict(result.timings),
    }
