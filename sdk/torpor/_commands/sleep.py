"""`torpor sleep`: put a machine to sleep."""

from __future__ import annotations

from ._console import Json, MachineName, client, done, single_command

app = single_command()


@app.command()
def sleep(machine: MachineName, as_json: Json = False) -> None:
    """Put a machine to sleep now. Never needed: idle, it falls asleep, and the next call wakes it.

    [bold]torpor sleep analysis[/bold]  saves it, and frees the memory that it takes
    """
    with client() as torpor:
        torpor.machine(machine, create=False).sleep()
    done(machine, f"{machine} is asleep.", as_json=as_json, state="asleep")
