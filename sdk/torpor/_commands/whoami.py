"""`torpor whoami`: whose key is used, and for which server."""

from __future__ import annotations

import sys

from ._console import Json, client, single_command, write, write_json

app = single_command()


@app.command()
def whoami(as_json: Json = False) -> None:
    """Print your account, and the server that is asked.

    [bold]torpor whoami[/bold]  says at once whether address and key are right
    """
    with client() as torpor:
        account = torpor.whoami()
        url = torpor.url
    if as_json:
        write_json({"account": account, "url": url})
    else:
        write(f"{account} at {url}\n", sys.stdout)
