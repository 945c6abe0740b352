"""`torpor sync`: make all of a machine durable now."""

from __future__ import annotations

from ._console import Json, MachineName, client, done, single_command

app = single_command()


@app.command()
def sync(machine: MachineName, as_json: Json = False) -> None:
    """Store all of a machine's state, and return when it is stored; it stays awake.

    Never needed: it is saved by itself, and a crash loses nothing that was answered.

    [bold]torpor sync analysis[/bold]  like `sync` and `fsync` for files
    """
    with client() as torpor:
        torpor.machine(machine, create=False).sync()
    done(machine, f"All of {machine} is stored.", as_json=as_json, synced=True)
