"""`torpor fork`: new machines from a state of one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import (
    GenerationOption,
    Json,
    MachineName,
    SeqOption,
    client,
    note,
    single_command,
    tags_of,
    write,
    write_json,
)

app = single_command()


@app.command()
def fork(
    machine: MachineName,
    generation: GenerationOption = None,
    seq: SeqOption = None,
    count: Annotated[int, typer.Option("-n", "--count", help="How many machines.", min=1, max=100)] = 1,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag of the new machines; else those of the old.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make new machines that go on from a state of this one, each its own way. Prints their names.

    [bold]torpor fork analysis[/bold]  as it is now; it is saved first

    [bold]torpor fork analysis --seq 12 -n 5[/bold]  five, as it was when instruction 12 had just finished

    [bold]torpor fork analysis --generation 7[/bold]  from a snapshot of `torpor snapshots`

    Forks share what is stored with the machine, and outlive it.
    """
    with client() as torpor:
        forks = torpor.machine(machine, create=False).fork(
            generation=generation, seq=seq, count=count, tags=tags_of(tag) if tag else None
        )
    if as_json:
        write_json([made.name for made in forks])
        return
    if forks.lacks:
        seqs = ", ".join(map(str, forks.lacks))
        note(f"It is busy: this is generation {forks.generation}, which lacks instructions {seqs}.")
    for made in forks:
        write(f"{made.name}\n", sys.stdout)
