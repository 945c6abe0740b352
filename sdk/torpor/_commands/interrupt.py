"""`torpor interrupt`: end what a machine runs."""

from __future__ import annotations

from ._console import MachineName, client, note, single_command

app = single_command()


@app.command()
def interrupt(machine: MachineName) -> None:
    """Raise KeyboardInterrupt in what a machine runs. Its variables stay."""
    with client() as torpor:
        interrupted = torpor.machine(machine, create=False).interrupt()
    note(f"{machine} is interrupted." if interrupted else f"{machine} runs nothing.")
