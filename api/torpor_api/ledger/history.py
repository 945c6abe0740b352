"""A machine's instructions as its users look them up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, select

from torpor_api.errors import InstructionNotFound
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.database import Statement
from torpor_api.ledger.moments import moment
from torpor_api.ledger.results import from_columns
from torpor_api.ledger.rows import InstructionRow
from torpor_api.ledger.schema import accounts, entries, machines
from torpor_worker.ledger import EndedBy, EntryKind

_COLUMNS = (
    entries.c.seq,
    entries.c.code,
    entries.c.timeout_seconds,
    entries.c.attempt,
    entries.c.accepted_at,
    entries.c.started_at,
    entries.c.finished_at,
    entries.c.undone,
    entries.c.rolled_back,
    entries.c.replays,
    entries.c.ended_by,
    entries.c.waited_for_save_ms,
    entries.c.value,
    entries.c.data,
    entries.c.error,
    entries.c.error_detail,
    entries.c.runtime_ms,
    entries.c.exit_code,
    entries.c.exit_signal,
    entries.c.wake,
    entries.c.expired,
    entries.c.output_expired,
    entries.c.kind,
    entries.c.background,
    entries.c.stdin,
)
_ONE = Statement(
    select(*_COLUMNS)
    .join(machines, machines.c.id == entries.c.machine_id)
    .join(accounts, accounts.c.id == machines.c.account_id)
    .where(
        accounts.c.name == bindparam("account"),
        machines.c.name == bindparam("machine"),
        entries.c.seq == bindparam("of_seq"),
    )
)


def one(connection: Connection, account: str, machine: str, seq: int) -> InstructionRow:
    """One instruction. Raises `MachineNotFound`, `InstructionNotFound`."""
    row = _ONE.first(connection, account=account, machine=machine, of_seq=seq)
    if row is None:
        lost = lost_before(connection, account, machine)
        if lost is not None and seq < lost:
            raise InstructionNotFound(
                f"What instruction {seq} was is not known any more: the database was rebuilt from the store."
            )
        raise InstructionNotFound
    return instruction(row)


def lost_before(connection: Connection, account: str, machine: str) -> int | None:
    """Below which seq instructions may be missing, after a rebuild of the database. Raises `MachineNotFound`."""
    machine_id = machine_rows.identify(connection, account, machine)
    return connection.scalar(select(machines.c.rebuilt_seq).where(machines.c.id == machine_id))


def newest_first(
    connection: Connection, account: str, machine: str, *, limit: int | None, cursor: str | None
) -> tuple[list[InstructionRow], str | None]:
    """A page of a machine's history, and the cursor of the next."""
    machine_id = machine_rows.identify(connection, account, machine)
    rows_of = select(*_COLUMNS).where(entries.c.machine_id == machine_id, entries.c.seq.is_not(None))
    rows_of = rows_of.order_by(entries.c.seq.desc())
    if cursor is not None:
        rows_of = rows_of.where(entries.c.seq < machine_rows.number_of(cursor))
    if limit is not None:
        rows_of = rows_of.limit(limit + 1)
    rows = connection.execute(rows_of).all()
    has_more = limit is not None and len(rows) > limit
    page = [instruction(tuple(row)) for row in rows[:limit]]
    return page, str(page[-1].seq) if has_more and page else None


def query(condition: ColumnElement[bool]) -> Select[Any]:
    """Rows for `instruction`."""
    return select(*_COLUMNS).where(condition)


def instruction(columns: tuple[Any, ...]) -> InstructionRow:
    """The instruction, or command, of a row."""
    seq, code, timeout_seconds, attempt, accepted_at, started_at, finished_at, *marks_and_result = columns
    undone, rolled_back, replays, ended_by, waited_for_save_ms, *result_and_more = marks_and_result
    *result, expired, output_expired, kind, background, stdin = result_and_more
    finished = finished_at is not None
    return InstructionRow(
        seq=seq,
        code=code,
        timeout_seconds=timeout_seconds,
        status="finished" if finished else "accepted" if started_at is None else "started",
        attempt=attempt,
        result=from_columns(*result) if finished and not expired else None,
        undone=bool(undone),
        rolled_back=bool(rolled_back),
        replayed=replays > 0,
        expired=bool(expired),
        output_expired=bool(output_expired),
        ended_by=None if ended_by is None else EndedBy(ended_by),
        accepted_at=moment(accepted_at),
        started_at=None if started_at is None else moment(started_at),
        finished_at=moment(finished_at) if finished else None,
        waited_for_save_ms=waited_for_save_ms,
        kind=EntryKind(kind),
        background=bool(background),
        stdin=stdin,
    )
