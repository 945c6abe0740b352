"""`torpor keys`: the keys that snapshots are encrypted with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torpor_api.config import BadSettings, read_config
from torpor_snapshotter.key_store_url import open_key_store
from torpor_snapshotter.keys import KeyMissing

BAD_SETTINGS_STATUS = 2

app = typer.Typer(help="Look after the keys that snapshots are encrypted with.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Keys are in the folder `keys` of the data folder, or at TORPOR_KEYS_URL; never lose them."""


@app.command()
def rotate(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where Torpor keeps what it stores  [~/.local/share/torpor]", show_default=False)
    ] = None,
    keys_url: Annotated[
        str | None, typer.Option(help="file:///PATH  [keys in the data folder]", show_default=False)
    ] = None,
) -> None:
    """Replace the master key, also while a server runs; machines and their snapshots stay as they are."""
    try:
        config = read_config({"data_dir": data_dir, "keys_url": keys_url})
    except BadSettings as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BAD_SETTINGS_STATUS) from None
    try:
        open_key_store(config.keys).rotate()
    except KeyMissing as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo("The master key was replaced. Backups of the keys from before still open what they hold.")
