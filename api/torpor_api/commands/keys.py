"""`torpor keys`: the keys that snapshots are encrypted with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter.keys import FolderKeyStore

app = typer.Typer(help="Look after the keys that snapshots are encrypted with.", no_args_is_help=True)

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", default_factory=default_data_dir, show_default=False, help="Where Torpor keeps what it stores."
    ),
]


@app.callback()
def keys() -> None:
    """Keys are in the folder `keys` of the data folder; never lose them."""


@app.command()
def rotate(data_dir: DataDir) -> None:
    """Replace the master key, also while a server runs; machines and their snapshots stay as they are."""
    folder = data_dir / "keys"
    if not folder.is_dir():
        typer.echo(f"There are no keys in {folder} yet: the first save of a machine makes them.", err=True)
        raise typer.Exit(1)
    FolderKeyStore(folder).rotate()
    typer.echo("The master key was replaced. Backups of the keys from before still open what they hold.")
