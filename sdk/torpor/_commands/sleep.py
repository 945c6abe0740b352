"""`torpor sleep`: put a machine to sleep."""

from __future__ import annotations

from ._console import MachineName, client, note, single_command

app = single_command()


@app.command()
def sleep(machine: MachineName) -> None:
    """Put a machine to sleep now. Never needed: idle, it falls asleep, and the next call wakes it."""
    with client() as torpor:
        torpor.machine(machine, create=False).sleep()
    note(f"{machine} is asleep.")
