"""`torpor show`: all that there is to know of a machine."""

from __future__ import annotations

from .._machine import Machine
from ._console import Json, MachineName, client, single_command, tags_text, write_json, write_table

app = single_command()


@app.command()
def show(machine: MachineName, as_json: Json = False) -> None:
    """Show a machine: state, settings, sizes, notices. Does not wake it.

    [bold]torpor show analysis --json | jq .state[/bold]  awake, asleep, waking, recovering or parked
    """
    with client() as torpor:
        show_machine(torpor.machine(machine, create=False), as_json=as_json)


def show_machine(machine: Machine, *, as_json: bool = False) -> None:
    """Write all that the server tells of it."""
    info = machine.detail()
    if as_json:
        write_json(info.model_dump(mode="json"))
        return
    fields = info.model_dump(mode="json", exclude={"notices", "tags"})
    rows = [(name, "" if value is None else str(value)) for name, value in fields.items()]
    rows.append(("tags", tags_text(info.tags)))
    rows += [("notice", f"{notice.code}: {notice.message}") for notice in info.notices]
    write_table(("FIELD", "VALUE"), rows)
