"""`torpor rm`: delete machines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import client, note, single_command

app = single_command()


@app.command()
def rm(
    machines: Annotated[list[str], typer.Argument(metavar="MACHINE...", help="Names of machines.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete machines and all that is stored of them, for good. On a terminal it asks first."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {', '.join(machines)} for good?", abort=True, err=True)
    with client() as torpor:
        for name in machines:
            torpor.machine(name, create=False).delete()
            note(f"{name} is deleted.")
