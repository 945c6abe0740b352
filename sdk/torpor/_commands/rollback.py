"""`torpor rollback`: let a machine go on from an earlier point."""

from __future__ import annotations

from typing import Annotated

import typer

from .._errors import TorporError
from .._models import Rollback
from ._console import GenerationOption, Json, MachineName, SeqOption, client, note, single_command, write_json

app = single_command()


@app.command()
def rollback(
    machine: MachineName,
    generation: GenerationOption = None,
    seq: SeqOption = None,
    interrupt: Annotated[bool, typer.Option("--interrupt", help="If something runs there, end it.")] = False,
    as_json: Json = False,
) -> None:
    """Let a machine go on from an earlier point of its life. What it did since stays in its log, marked.

    [bold]torpor rollback analysis --seq 12[/bold]  to when instruction 12 had just finished

    [bold]torpor rollback analysis --generation 7[/bold]  to a snapshot of `torpor snapshots`

    The machine is saved first: [bold]torpor undo[/bold] takes the rollback back.
    """
    if (generation is None) == (seq is None):
        raise TorporError("Where to?", hint="Say --seq or --generation; see `torpor log` and `torpor snapshots`.")
    with client() as torpor:
        done = torpor.machine(machine, create=False).rollback(generation=generation, seq=seq, interrupt=interrupt)
    if as_json:
        write_json(done.model_dump(mode="json"))
    else:
        tell(machine, done)


def tell(machine: str, done: Rollback, *, undo: str | None = None) -> None:
    """Say what a rollback did, and how to take it back: by `undo`, or by the command line."""
    where = "its beginning" if done.generation is None else f"generation {done.generation}"
    again = f", and runs again what led to the point: {_named(done.replayed)}" if done.replayed else ""
    note(f"{machine} goes on from {where}{again}.")
    if done.left_behind:
        note(f"Left behind: {_named(done.left_behind)}.")
    if done.undo is not None and done.undo.generation is not None:
        note(f"To take it back: {undo or f'torpor rollback {machine} --generation {done.undo.generation}'}")


def _named(seqs: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, seqs[:10])) + (", …" if len(seqs) > 10 else "")
    return f"instruction {shown}" if len(seqs) == 1 else f"instructions {shown}"
