"""What a snapshot's manifest says of its machine, so that a lost database can be rebuilt from the store."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, select

from torpor_api.ledger.moments import now
from torpor_api.ledger.schema import entries, lines, machine_tags, machines, snapshots

_NO_SETTINGS: Final = {
    "id",
    "name",
    "account_id",
    "created_at",
    "session_id",
    "epoch",
    "ready",
    "recovering",
    "parked_reason",
    "line",
    "next_line",
    "head_generation",
    "next_generation",
    "next_seq",
    "next_position",
    "recovery_tries",
    "recovery_deaths",
    "parked_seq",
    "log_from",
    "output_from",
    "rebuilt_line",
    "rebuilt_seq",
}
SETTINGS: Final = tuple(column.name for column in machines.columns if column.name not in _NO_SETTINGS)
"""Columns of a machine that a rebuild gives back as a manifest has them."""
LONGEST_CODE: Final = 1 << 18
"""Characters of a running instruction's code that go into a manifest; longer code does not."""
MOST_LINES: Final = 1000
"""How many lines, the newest ones, a manifest names."""


def facts(
    connection: Connection, machine_id: int, running_seq: int | None, commands: Collection[int] = ()
) -> dict[str, Any]:
    """Tags, settings, lines, pins and counters as they are now, and the instruction that runs in the snapshot, if any.

    Times are in microseconds of UTC since 1970; a line is `[line, parent, generation, position, undo]`.
    """
    machine = connection.execute(select(machines).where(machines.c.id == machine_id)).one()
    tags = connection.execute(select(machine_tags).where(machine_tags.c.machine_id == machine_id))
    said: dict[str, Any] = {
        "tags": {tag.name: tag.value for tag in tags},
        "created_at": machine.created_at,
        "saved_at": now(),
        "settings": {name: machine._mapping[name] for name in SETTINGS},
        "next_seq": machine.next_seq,
        "lines": _lines(connection, machine_id, machine.line),
        "pinned": list(
            connection.scalars(
                select(snapshots.c.generation)
                .where(snapshots.c.machine_id == machine_id, snapshots.c.pinned == 1)
                .order_by(snapshots.c.generation)
            )
        ),
    }
    if running_seq is not None:
        running = connection.execute(
            select(entries.c.code, entries.c.timeout_seconds, entries.c.stdin, entries.c.stdin_open).where(
                entries.c.machine_id == machine_id, entries.c.seq == running_seq
            )
        ).one()
        code = running.code if len(running.code) <= LONGEST_CODE else None
        said["running"] = {"code": code, "timeout_seconds": running.timeout_seconds}
        if running.stdin is not None:
            text = running.stdin if len(running.stdin) <= LONGEST_CODE else ""
            said["running"] |= {"stdin": text, "stdin_open": bool(running.stdin_open)}
    if commands:
        said["commands"] = _commands(connection, machine_id, commands)
    return said


def _commands(connection: Connection, machine_id: int, seqs: Collection[int]) -> dict[int, dict[str, Any]]:
    """What must be known of commands that run in a snapshot, by seq."""
    columns = (entries.c.seq, entries.c.code, entries.c.timeout_seconds, entries.c.position)
    rows = connection.execute(select(*columns).where(entries.c.machine_id == machine_id, entries.c.seq.in_(seqs)))
    return {
        row.seq: {
            "code": row.code if len(row.code) <= LONGEST_CODE else None,
            "timeout_seconds": row.timeout_seconds,
            "position": row.position,
        }
        for row in rows
    }


def _lines(connection: Connection, machine_id: int, line: int) -> list[list[int | None]]:
    """The lines that a line comes from, itself first."""
    begins = {row.line: row for row in connection.execute(select(lines).where(lines.c.machine_id == machine_id))}
    descent: list[list[int | None]] = []
    while (begin := begins.get(line)) is not None and len(descent) < MOST_LINES:
        descent.append([begin.line, begin.parent, begin.generation, begin.position, begin.undo])
        line = begin.parent
    return descent
