"""`torpor interrupt`: end what a machine runs."""

from __future__ import annotations

from typing import Annotated

import typer

from ._console import Json, MachineName, client, done, single_command

app = single_command()


@app.command()
def interrupt(
    machine: MachineName,
    seq: Annotated[
        int | None,
        typer.Argument(metavar="SEQ", help="Only this instruction, as soon as it begins if it still waits.", min=0),
    ] = None,
    as_json: Json = False,
) -> None:
    """Raise KeyboardInterrupt in what a machine runs, as Ctrl-C does; its variables stay.

    [bold]torpor interrupt analysis[/bold]  whatever runs; code that does not heed it is ended after 3 seconds

    [bold]torpor interrupt analysis 12[/bold]  only instruction 12, so that nothing that came after it is hit
    """
    with client() as torpor:
        interrupted = torpor.machine(machine, create=False).interrupt(seq)
    running = "runs nothing" if seq is None else f"has no unfinished instruction {seq}"
    sentence = f"{machine} is interrupted." if interrupted else f"{machine} {running}."
    done(machine, sentence, as_json=as_json, interrupted=interrupted)
