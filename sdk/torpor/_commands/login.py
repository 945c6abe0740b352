"""`torpor login`: remember a server and a key."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from .._client import Client
from .._config import DEFAULT_URL, config_file, save_config
from ._console import Json, note, single_command, write_json

app = single_command()


@app.command()
def login(
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The server's address; asked for on a terminal.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask for an API key, see that the server takes it, and save both for every command and the SDK.

    On a terminal the key is asked for and not shown; otherwise it is read from standard input:

    [bold]torpor login[/bold]  asks for both

    [bold]echo "$KEY" | torpor login --url https://torpor.example.com[/bold]  in a script
    """
    if sys.stdin.isatty():
        url = url or typer.prompt("Server", default=DEFAULT_URL, err=True)
        key = typer.prompt("API key", hide_input=True, err=True)
    else:
        url, key = url or DEFAULT_URL, sys.stdin.readline()
    with Client(url=url, api_key=key.strip()) as torpor:
        account = torpor.whoami()
        path = config_file(os.environ)
        save_config(path, torpor.url, key.strip())
    if as_json:
        write_json({"account": account, "url": url, "file": str(path)})
    else:
        note(f"You are {account} at {url}. Saved in {path}.")
    for variable in ("TORPOR_URL", "TORPOR_API_KEY"):
        if os.environ.get(variable):
            note(f"{variable} is set, and goes before what was saved.")
