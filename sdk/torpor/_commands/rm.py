"""`torpor rm`: delete machines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import Json, client, note, single_command, write_json
from ._machine_names import machine_names

app = single_command()


@app.command()
def rm(
    machines: Annotated[
        list[str],
        typer.Argument(metavar="MACHINE", help="Names of machines.", autocompletion=machine_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete machines and all that is stored of them, for good. On a terminal it asks first.

    [bold]torpor rm analysis[/bold]  its forks live on

    [bold]torpor ls -q --tag env=test | xargs torpor rm --yes[/bold]  all with this tag
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {', '.join(machines)} for good?", abort=True, err=True)
    with client() as torpor:
        for name in machines:
            torpor.machine(name, create=False).delete()
            if not as_json:
                note(f"{name} is deleted.")
    if as_json:
        write_json({"deleted": machines})
