"""`torpor new`: make a machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import (
    DurabilityOption,
    IdleOption,
    Json,
    MemoryOption,
    RecoveryOption,
    ReplaySecondsOption,
    client,
    idle_seconds_of,
    single_command,
    tags_of,
    write,
    write_json,
)

app = single_command()


@app.command()
def new(
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A word of your own to find it by; can be repeated.")
    ] = None,
    memory: MemoryOption = None,
    idle: IdleOption = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="python|data", help="What it starts from; `data` has NumPy, pandas and others imported."),
    ] = None,
    durability: DurabilityOption = None,
    recovery: RecoveryOption = None,
    replay_seconds: ReplaySecondsOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="ALIAS", help="A name of your own for it; if it is there already, that is it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a machine and print its name. It is there until `torpor rm`.

    [bold]torpor new --name analysis[/bold]  every other command takes that name, too: torpor repl analysis

    [bold]torpor new --tag user=42[/bold]  then `torpor ls --tag user=42` finds it

    [bold]torpor new --template data --memory 4096[/bold]  NumPy, pandas and others are imported already

    [bold]torpor repl $(torpor new)[/bold]  talk to it at once
    """
    with client() as torpor:
        machine = torpor.new_machine(
            tags=tags_of(tag or ()),
            memory_mb=memory,
            idle_seconds=idle_seconds_of(idle),
            template=template,
            durability=durability,
            recovery=recovery,
            replay_seconds=replay_seconds,
            alias=name,
        )
    if as_json:
        write_json({"machine_name": machine.name})
    else:
        write(f"{machine.name}\n", sys.stdout)
