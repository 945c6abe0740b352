"""`torpor tag`: show or change a machine's tags."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .._terminal.safe_text import plain
from ._console import Json, MachineName, client, single_command, tags_of, tags_text, write, write_json

app = single_command()


@app.command()
def tag(
    machine: MachineName,
    tags: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Tags to set.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", "-r", metavar="NAME", help="A tag to take away; can be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set tags of a machine, or take some away; other tags stay. Prints those that it has then.

    [bold]torpor tag analysis user=42 env=test[/bold]  now `torpor ls --tag user=42` finds it

    [bold]torpor tag analysis --remove env[/bold]
    """
    changes: dict[str, str | None] = {**dict.fromkeys(remove or ()), **tags_of(tags or ())}
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        info = target.update(tags=changes) if changes else target.detail()
    if as_json:
        write_json(info.tags)
    else:
        write(f"{plain(tags_text(info.tags))}\n", sys.stdout)
