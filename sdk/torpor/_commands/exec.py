"""`torpor exec`: execute a command on a machine."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from ._console import MachineName, TimeoutOption, client, note, single_command, tags_of
from ._remote import Left, Remote, status_of, window

INTERRUPTED = 130

app = single_command()


@app.command(context_settings={"allow_interspersed_args": False})
def execute(
    machine: MachineName,
    argv: Annotated[list[str], typer.Argument(metavar="COMMAND [ARGUMENT]...", help="A program and its arguments.")],
    *,
    cwd: Annotated[str | None, typer.Option("--cwd", "-w", metavar="FOLDER", help="Where to begin.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable.")] = None,
    timeout: TimeoutOption = math.inf,
    terminal: Annotated[
        bool | None, typer.Option("--tty/--no-tty", help="Give it a terminal; so by default where there is one.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Let it run in the background, and print its number.")
    ] = False,
) -> None:
    """Execute a command on a machine, beside whatever else runs there.

    [bold]torpor exec aB3dE6gH9jK2mN5p -- ls -l[/bold]

    [bold]tar c data | torpor exec aB3dE6gH9jK2mN5p -- tar x[/bold]

    Ctrl-C is passed on. The exit status is the command's: 128 and the signal's number if that ended it, 124 if its time
    was over. In a terminal, Ctrl-] leaves it running.
    """
    argv = argv[1:] if argv[0] == "--" else argv
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() if terminal is None else terminal
    with client() as torpor:
        commands = torpor.machine(machine, create=False).commands
        size = window() if on_terminal else False
        if detach:
            command = commands.start(argv, cwd=cwd, env=tags_of(env or []), pty=size, timeout_seconds=None)
            typer.echo(command.seq)
            return
        feed = not sys.stdin.isatty()
        stream = commands.stream(
            argv,
            cwd=cwd,
            env=tags_of(env or []),
            stdin_open=True if feed or on_terminal else None,
            timeout_seconds=timeout,
            pty=size,
        )
        try:
            status = status_of(Remote(commands, stream, terminal=on_terminal, feed=feed).follow())
        except (KeyboardInterrupt, Left):
            note(f"\nIt runs on. To follow it: torpor sh {machine} --attach {stream.seq}")
            raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(status)
