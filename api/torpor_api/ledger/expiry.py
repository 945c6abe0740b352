"""What of a machine's log, output and events is not kept any more: the oldest goes first, a few in a transaction.

What goes is marked where it was, so that nobody takes it for something that never was.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, delete, select, update

from torpor_api.ledger import notices, saves
from torpor_api.ledger.moments import now
from torpor_api.ledger.schema import entries, events, machines, output_pieces
from torpor_worker.ledger import EntryKind

KEPT_ALWAYS: Final = 100
"""The newest instructions of each machine, which keep everything however old they are."""
AT_ONCE: Final = 500
"""Entries that one transaction looks at: others wait for it."""
QUIESCENT_KEPT: Final = 2

DAY_MICROSECONDS: Final = 24 * 60 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class LogRetention:
    """How many days what is kept; None: for ever."""

    log_days: float | None = None
    """Code and results. Never less than a recovery from the second-newest snapshot in which nothing ran needs."""
    output_days: float | None = None
    events_days: float | None = None


def due(connection: Connection, retention: LogRetention, after: int, limit: int) -> tuple[list[tuple[int, str]], int]:
    """Of the next `limit` machines behind id `after` those with something to expire; the last id, 0: no more.

    Parked machines are left alone: all that there is may be needed to bring them back.
    """
    query = select(machines).where(machines.c.id > after, machines.c.parked_reason.is_(None))
    rows = connection.execute(query.order_by(machines.c.id).limit(limit)).all()
    some = [
        (row.id, row.name)
        for row in rows
        if _log(connection, row, retention)
        or _output(connection, row, retention)
        or notices.oldest_event(connection, row.id) < _cutoff(retention.events_days)
    ]
    return some, rows[-1].id if len(rows) == limit else 0


def expire(connection: Connection, machine_id: int, retention: LogRetention) -> bool:
    """Give up the oldest of what is too old; whether there may be more of it."""
    row = connection.execute(select(machines).where(machines.c.id == machine_id)).first()
    if row is None or row.parked_reason is not None:
        return False
    notices.forget_events(connection, machine_id, events.c.at < _cutoff(retention.events_days))
    log, output = _log(connection, row, retention), _output(connection, row, retention)
    if output:
        ids = [entry.id for entry in output]
        had = select(output_pieces.c.entry_id).where(output_pieces.c.entry_id.in_(ids)).distinct()
        connection.execute(update(entries).where(entries.c.id.in_(had)).values(output_expired=1))
        connection.execute(delete(output_pieces).where(output_pieces.c.entry_id.in_(ids)))
    if log:
        connection.execute(
            update(entries)
            .where(entries.c.id.in_([entry.id for entry in log]))
            .values(code="", stdin=None, value=None, data=None, error=None, error_detail=None, expired=1)
        )
        read = and_(
            entries.c.machine_id == machine_id,
            entries.c.kind == EntryKind.INPUT,
            entries.c.target.in_([entry.seq for entry in log]),
        )
        connection.execute(update(entries).where(read).values(code="", expired=1))
    connection.execute(
        update(machines)
        .where(machines.c.id == machine_id)
        .values(
            log_from=log[-1].seq + 1 if log else machines.c.log_from,
            output_from=output[-1].seq + 1 if output else machines.c.output_from,
        )
    )
    return AT_ONCE in (len(log), len(output))


def referred_segments(connection: Connection, machine: str) -> set[int]:
    """Numbers of the machine's files of output that a row refers to."""
    machine_id = select(machines.c.id).where(machines.c.name == machine).scalar_subquery()
    query = select(output_pieces.c.segment).where(
        output_pieces.c.machine_id == machine_id, output_pieces.c.segment.is_not(None)
    )
    return set(connection.scalars(query.distinct()))


def _log(connection: Connection, machine: Row[Any], retention: LogRetention) -> list[Row[Any]]:
    """Instructions whose code and result are too old, and that no recovery needs."""
    old = _oldest(connection, machine, machine.log_from, _cutoff(retention.log_days))
    needed_from = floor(connection, machine.id) if old else -1
    return list(takewhile(lambda entry: entry.position is None or entry.position <= needed_from, old))


def _output(connection: Connection, machine: Row[Any], retention: LogRetention) -> list[Row[Any]]:
    """Instructions whose output is too old."""
    return _oldest(connection, machine, machine.output_from, _cutoff(retention.output_days))


def _oldest(connection: Connection, machine: Row[Any], first_seq: int, before: int) -> list[Row[Any]]:
    """The oldest instructions from a seq on, as far as all of them were finished before a time."""
    query = select(entries.c.id, entries.c.seq, entries.c.finished_at, entries.c.position).where(
        entries.c.machine_id == machine.id,
        entries.c.seq >= first_seq,
        entries.c.seq < machine.next_seq - KEPT_ALWAYS,
    )
    rows: list[Row[Any]] = [*connection.execute(query.order_by(entries.c.seq).limit(AT_ONCE))]
    return list(takewhile(lambda entry: entry.finished_at is not None and entry.finished_at < before, rows))


def floor(connection: Connection, machine_id: int) -> int:
    """The position behind which the log is needed: that of the second-newest generation in which nothing ran."""
    quiescent = [one for one in saves.line_of_descent(connection, machine_id) if one.quiescent]
    return quiescent[QUIESCENT_KEPT - 1].position if len(quiescent) >= QUIESCENT_KEPT else -1


def _cutoff(days: float | None) -> int:
    return 0 if days is None else now() - round(days * DAY_MICROSECONDS)
