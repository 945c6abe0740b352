"""`torpor debug`: see recovery work."""

from __future__ import annotations

import typer

from ._console import Json, MachineName, client, note, write_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", no_args_is_help=True)


@app.callback()
def debug() -> None:
    """See how a machine is recovered."""


@app.command()
def crash(machine: MachineName, as_json: Json = False) -> None:
    """Kill a machine's process, as an accident would: what runs is undone, and the machine is recovered by itself.

    [bold]torpor debug crash analysis[/bold]  then `torpor show analysis` has its notices
    """
    with client() as torpor:
        crashed = torpor.machine(machine, create=False).crash()
    if as_json:
        write_json({"crashed": crashed})
    elif crashed:
        note(f"The process of {machine} was killed. `torpor show {machine}` tells what became of it.")
    else:
        note(f"{machine} is not awake: it has no process.")
