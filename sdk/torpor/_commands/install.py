"""`torpor install`: install packages on a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ._console import Json, MachineName, client, note, single_command, write_json

app = single_command()


@app.command()
def install(
    machine: MachineName,
    packages: Annotated[list[str], typer.Argument(metavar="PACKAGE...", help="As after pip install.")],
    *,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", "-U", help="Install a newer version though one that does is there.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", "-t", metavar="SECONDS", help="End it after so much running time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Install packages on a machine, as far as its server allows them.

    [bold]torpor install analysis seaborn 'polars>=1'[/bold]
    """
    with client() as torpor:
        done = torpor.machine(machine, create=False).packages.install(
            packages, upgrade=upgrade, timeout_seconds=timeout
        )
    if as_json:
        write_json([package.model_dump(mode="json") for package in done.installed])
        return
    for package in done.installed:
        typer.echo(f"{package.name} {package.version}")
    if not done.installed:
        note("It is all there already.")
