"""`torpor ls`: list machines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import Json, client, single_command, size_text, tags_of, tags_text, time_text, write, write_json
from ._console import write_table as table

app = single_command()


@app.command()
def ls(
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only those with this tag; can be repeated.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Names only, one a line.")] = False,
    as_json: Json = False,
) -> None:
    """List your machines, newest first.

    [bold]torpor ls --tag user=42[/bold]  those with this tag

    [bold]torpor ls -q | xargs -n1 torpor show[/bold]  each of them, for a script
    """
    with client() as torpor:
        machines = [machine.info for machine in torpor.machines(tags=tags_of(tag or ())) if machine.info]
    if as_json:
        write_json([info.model_dump(mode="json") for info in machines])
    elif quiet:
        write("".join(f"{info.name}\n" for info in machines), sys.stdout)
    else:
        table(
            ("MACHINE", "ALIAS", "STATE", "LAST USED", "STORED", "TAGS"),
            (
                (
                    info.name,
                    info.alias or "",
                    info.state or ("awake" if info.running else "asleep"),
                    time_text(info.last_used_at or info.created_at),
                    size_text(info.stored_bytes),
                    tags_text(info.tags),
                )
                for info in machines
            ),
        )
