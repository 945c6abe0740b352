"""`torpor tag`: show or change a machine's tags."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import MachineName, client, single_command, tags_of, tags_text, write

app = single_command()


@app.command()
def tag(
    machine: MachineName,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Tags to set.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", "-r", metavar="NAME", help="A tag to take away; can be repeated.")
    ] = None,
) -> None:
    """Set tags of a machine, or take some away; other tags stay. Prints those that it has then."""
    changes: dict[str, str | None] = {**dict.fromkeys(remove or ()), **tags_of(tags or ())}
    with client() as torpor:
        target = torpor.machine(machine, create=False)
        info = target.update(tags=changes) if changes else target.detail()
    write(f"{tags_text(info.tags)}\n", sys.stdout)
