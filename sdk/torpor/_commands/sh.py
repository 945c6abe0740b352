"""`torpor sh`: a shell on a machine."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from .._errors import TorporError
from ._console import MachineName, TimeoutOption, client, note, single_command
from ._remote import Left, Remote, status_of, window

INTERRUPTED = 130
SHELL = ("/bin/bash", "-i")

app = single_command()


@app.command()
def sh(
    machine: MachineName,
    *,
    line: Annotated[
        str | None, typer.Option("-c", "--command", metavar="LINE", help="Execute this line, and nothing else.")
    ] = None,
    attach: Annotated[
        int | None, typer.Option("--attach", "-a", metavar="SEQ", min=0, help="Go on with a command that runs.")
    ] = None,
    timeout: TimeoutOption = math.inf,
) -> None:
    """A shell on a machine, beside whatever else runs there.

    [bold]torpor sh aB3dE6gH9jK2mN5p[/bold]  is a shell for people; Ctrl-] leaves it, and it stays

    [bold]torpor sh aB3dE6gH9jK2mN5p -c 'ls *.csv | wc -l'[/bold]

    A shell that was left sleeps with its machine, and is there again with all that it knew. The exit status is the
    command's.
    """
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with client() as torpor:
        commands = torpor.machine(machine, create=False).commands
        if line is not None:
            stream = commands.stream(line, timeout_seconds=timeout, stdin_open=not sys.stdin.isatty() or None)
        elif attach is not None:
            stream = commands.get(attach).stream()
        elif on_terminal:
            stream = commands.start(SHELL, pty=window()).stream()
        else:
            raise TorporError("There is no terminal for a shell.", hint="Give it a line to execute with -c.")
        keyboard = on_terminal and line is None
        feed = line is not None and not sys.stdin.isatty()
        try:
            status = status_of(Remote(commands, stream, terminal=keyboard, feed=feed).follow())
        except (KeyboardInterrupt, Left):
            note(f"\r\nIt runs on. To go on with it: torpor sh {machine} --attach {stream.seq}")
            raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(status)
