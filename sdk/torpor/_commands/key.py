"""`torpor key`: your account's API keys."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._console import Json, client, note, time_text, write, write_json, write_table

app = typer.Typer(help="List, make and revoke your account's API keys.", no_args_is_help=True)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys that open your account; `*` is the one in use here. Their secrets are known to nobody but you."""
    with client() as torpor:
        keys = torpor.keys()
    if as_json:
        write_json([key.model_dump(mode="json") for key in keys])
    else:
        rows = ((key.id, key.name, time_text(key.created_at), "*" if key.current else "") for key in keys)
        write_table(("ID", "NAME", "MADE", "IN USE"), rows)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, such as `laptop` or `ci`.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key and print it: only now can it be seen.

    [bold]torpor key new laptop[/bold]
    """
    with client() as torpor:
        key = torpor.new_key(name)
    if as_json:
        write_json({"id": key.id, "name": key.name, "api_key": key.api_key.get_secret_value()})
    else:
        write(f"{key.api_key.get_secret_value()}\n", sys.stdout)
        note(f"It is shown this once. To revoke it: torpor key revoke {key.id}")


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="See `torpor key list`.")], as_json: Json = False
) -> None:
    """Let a key in no longer, from now on.

    [bold]torpor key revoke 3[/bold]  3 is its number in `torpor key list`
    """
    with client() as torpor:
        torpor.revoke_key(key)
    if as_json:
        write_json({"revoked": key})
    else:
        note(f"The key {key} opens nothing any more.")
