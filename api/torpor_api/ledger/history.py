"""A machine's instructions as its users look them up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.moments import moment
from torpor_api.ledger.results import from_columns
from torpor_api.ledger.rows import InstructionRow
from torpor_api.ledger.schema import accounts, entries, machines
from torpor_worker.ledger import EndedBy


def one(connection: Connection, account: str, machine: str, seq: int) -> InstructionRow:
    """One instruction. Raises `MachineNotFound`, `InstructionNotFound`."""
    query = (
        select(entries)
        .join(machines, machines.c.id == entries.c.machine_id)
        .join(accounts, accounts.c.id == machines.c.account_id)
    )
    row = connection.execute(
        query.where(accounts.c.name == account, machines.c.name == machine, entries.c.seq == seq)
    ).first()
    if row is None:
        machine_rows.identify(connection, account, machine)
        raise InstructionNotFound
    return _instruction(row)


def newest_first(
    connection: Connection, account: str, machine: str, *, limit: int | None, cursor: str | None
) -> tuple[list[InstructionRow], str | None]:
    """A page of a machine's history, and the cursor of the next."""
    machine_id = machine_rows.identify(connection, account, machine)
    query = select(entries).where(entries.c.machine_id == machine_id, entries.c.seq.is_not(None))
    query = query.order_by(entries.c.seq.desc())
    if cursor is not None:
        query = query.where(entries.c.seq < machine_rows.number_of(cursor))
    if limit is not None:
        query = query.limit(limit + 1)
    rows = connection.execute(query).all()
    has_more = limit is not None and len(rows) > limit
    rows = rows[:limit]
    return [instruction(row) for row in rows], str(rows[-1].seq) if has_more and rows else None


def instruction(row: Row[Any]) -> InstructionRow:
    """The value of a row of `entries`, columns by their names."""
    finished = row.finished_at is not None
    return InstructionRow(
        seq=row.seq,
        code=row.code,
        timeout_seconds=row.timeout_seconds,
        status="finished" if finished else "accepted" if row.started_at is None else "started",
        attempt=row.attempt,
        result=from_columns(row.value, row.data, row.error, row.error_detail, row.runtime_ms) if finished else None,
        undone=bool(row.undone),
        replayed=row.replays > 0,
        ended_by=None if row.ended_by is None else EndedBy(row.ended_by),
        accepted_at=moment(row.accepted_at),
        started_at=None if row.started_at is None else moment(row.started_at),
        finished_at=moment(row.finished_at) if finished else None,
    )
