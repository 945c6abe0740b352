"""`torpor show`: all that there is to know of a machine."""

from __future__ import annotations

from ._console import Json, MachineName, client, single_command, tags_text, write_json, write_table

app = single_command()


@app.command()
def show(machine: MachineName, as_json: Json = False) -> None:
    """Show a machine: state, settings, sizes, notices. Does not wake it."""
    with client() as torpor:
        info = torpor.machine(machine, create=False).detail()
    if as_json:
        write_json(info.model_dump(mode="json"))
        return
    fields = info.model_dump(mode="json", exclude={"notices", "tags"})
    rows = [(name, "" if value is None else str(value)) for name, value in fields.items()]
    rows.append(("tags", tags_text(info.tags)))
    rows += [("notice", f"{notice.code}: {notice.message}") for notice in info.notices]
    write_table(("FIELD", "VALUE"), rows)
