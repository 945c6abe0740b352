"""`torpor new`: make a machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .._calls import UNSET, Unset
from .._errors import TorporError
from ._console import Json, client, single_command, tags_of, write, write_json

app = single_command()


@app.command()
def new(
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A word of your own to find it by; can be repeated.")
    ] = None,
    memory: Annotated[int | None, typer.Option(metavar="MB", help="Memory that it may use.", min=1)] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="After so long without work it falls asleep; `never` keeps it awake."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="python|data", help="What it starts from; `data` has NumPy, pandas and others imported."),
    ] = None,
    recovery: Annotated[
        str | None,
        typer.Option(
            metavar="replay|rollback",
            help="What it did since its last save, when its process is lost: executed again, or left behind.",
        ),
    ] = None,
    replay_seconds: Annotated[
        float | None,
        typer.Option("--replay-seconds", metavar="SECONDS", help="How much running time a recovery may execute again."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a machine and print its name. It is there until `torpor rm`."""
    with client() as torpor:
        machine = torpor.new_machine(
            tags=tags_of(tag or ()),
            memory_mb=memory,
            idle_seconds=_idle_seconds(idle),
            template=template,
            recovery=recovery,
            replay_seconds=replay_seconds,
        )
    if as_json:
        write_json({"machine_name": machine.name})
    else:
        write(f"{machine.name}\n", sys.stdout)


def _idle_seconds(text: str | None) -> float | Unset | None:
    if text is None:
        return UNSET
    if text == "never":
        return None
    try:
        return float(text)
    except ValueError:
        raise TorporError(f"--idle takes a number of seconds or `never`, not {text!r}.") from None
