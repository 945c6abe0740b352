"""`torpor snapshots`: the saved states of a machine."""

from __future__ import annotations

from .._machine import Machine
from .._models import Snapshot
from ._console import Json, MachineName, client, single_command, size_text, time_text, write_json, write_table

app = single_command()


@app.command()
def snapshots(machine: MachineName, as_json: Json = False) -> None:
    """List the saved states of a machine that are kept, newest first.

    SEQ is the last instruction that is finished in it; LINE grows with each rollback.

    [bold]torpor snapshots analysis[/bold]

    [bold]torpor rollback analysis --generation 7[/bold]  lets the machine go on from one

    [bold]torpor pin analysis 7[/bold]  keeps it for ever
    """
    with client() as torpor:
        show_snapshots(torpor.machine(machine, create=False), as_json=as_json)


def show_snapshots(machine: Machine, *, as_json: bool = False) -> None:
    """Write those that are kept."""
    found = machine.snapshots()
    if as_json:
        write_json([snapshot.model_dump(mode="json") for snapshot in found])
        return
    write_table(
        ("GENERATION", "LINE", "WHEN", "SEQ", "STORED", "MARKS"),
        (
            (
                str(snapshot.generation),
                str(snapshot.line),
                time_text(snapshot.created_at),
                "" if snapshot.seq is None else str(snapshot.seq),
                size_text(snapshot.stored_bytes),
                _marks(snapshot),
            )
            for snapshot in found
        ),
    )


def _marks(snapshot: Snapshot) -> str:
    marks = {"current": snapshot.current, "pinned": snapshot.pinned, "mid-instruction": not snapshot.quiescent}
    return " ".join(name for name, holds in marks.items() if holds)
