"""Commands as they are accepted, and listed."""

from __future__ import annotations

import json
from typing import Any, cast

from sqlalchemy import Connection, Row, and_, func, select

from torpor_api.errors import (
    CommandInputClosed,
    CommandInputFull,
    CommandNotFound,
    CommandNotRunning,
    MachineNotFound,
    MachineParked,
    TooManyCommands,
)
from torpor_api.ledger import entries as log
from torpor_api.ledger import history
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.entries import accept_beside
from torpor_api.ledger.results import storable
from torpor_api.ledger.rows import Accepted, Idempotency, InstructionRow
from torpor_api.ledger.runtimes import ANY_QUARANTINED, refuse_quarantined
from torpor_api.ledger.schema import accounts, entries, machines
from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.ledger import Entry, EntryKind

UNFINISHED_LIMIT = 64
"""Commands of one machine that run or wait at once."""
INPUT_LIMIT_BYTES = 16 << 20
"""What one command may be given beside what it began with: all of it stays in the log, and waits in the guest."""


def accept(
    connection: Connection,
    account: str,
    machine: str,
    spec: CommandSpec,
    timeout_seconds: float,
    *,
    background: bool,
    idempotency: Idempotency | None,
) -> Accepted:
    """Write a command into the log, started if the machine is awake; see `CommandSide.accept_command`."""
    row = _for_accept(connection, account, machine)
    if (earlier := _earlier(connection, row.account_id, idempotency)) is not None:
        return earlier
    _refuse_unready(connection, row)
    unfinished = connection.scalar(
        select(func.count()).where(
            entries.c.machine_id == row.id, entries.c.kind == EntryKind.COMMAND, entries.c.finished_at.is_(None)
        )
    )
    if int(unfinished or 0) >= UNFINISHED_LIMIT:
        raise TooManyCommands
    entry = Entry(
        id=0,
        kind=EntryKind.COMMAND,
        seq=row.next_seq,
        position=None,
        attempt=0,
        timeout_seconds=timeout_seconds,
        code=storable(spec.to_text()) or "",
        background=background,
    )
    return _accept(connection, row, entry, row.next_seq, idempotency)


def accept_input(
    connection: Connection,
    account: str,
    machine: str,
    seq: int,
    piece: CommandInput,
    *,
    idempotency: Idempotency | None,
) -> Accepted:
    """Write input for a command into the log; see `CommandSide.accept_command_input`."""
    row = _for_accept(connection, account, machine)
    if (earlier := _earlier(connection, row.account_id, idempotency)) is not None:
        return earlier
    _refuse_unready(connection, row)
    spec = _running(connection, row.id, seq)
    mine = and_(entries.c.machine_id == row.id, entries.c.kind == EntryKind.COMMAND_INPUT, entries.c.target == seq)
    last = connection.scalar(select(entries.c.code).where(mine).order_by(entries.c.id.desc()).limit(1))
    closed = last is not None and json.loads(last)["close"] and spec.terminal is None
    if closed or not (spec.stdin_open or spec.terminal is not None):
        raise CommandInputClosed
    known_bytes = connection.scalar(select(func.coalesce(func.sum(func.length(entries.c.code)), 0)).where(mine))
    if int(known_bytes or 0) * 3 // 4 + len(piece.data) > INPUT_LIMIT_BYTES:
        raise CommandInputFull
    return _accept_for(connection, row, EntryKind.COMMAND_INPUT, seq, piece.to_text(), idempotency)


def accept_signal(
    connection: Connection,
    account: str,
    machine: str,
    seq: int,
    sign: CommandSignal,
    *,
    idempotency: Idempotency | None,
) -> Accepted:
    """Write a signal for a command into the log; see `CommandSide.accept_command_signal`."""
    row = _for_accept(connection, account, machine)
    if (earlier := _earlier(connection, row.account_id, idempotency)) is not None:
        return earlier
    _refuse_unready(connection, row)
    _running(connection, row.id, seq)
    return _accept_for(connection, row, EntryKind.COMMAND_SIGNAL, seq, sign.to_text(), idempotency)


def running_first(
    connection: Connection, account: str, machine: str, *, limit: int | None, cursor: str | None
) -> tuple[list[InstructionRow], str | None]:
    """A page of a machine's commands: on the first those that have no end, then the others, newest first."""
    machine_id = machine_rows.identify(connection, account, machine)
    mine = and_(entries.c.machine_id == machine_id, entries.c.kind == EntryKind.COMMAND)
    query = history.query(mine).order_by(entries.c.seq.desc())
    unfinished = query.where(entries.c.finished_at.is_(None))
    found = [] if cursor is not None else [history.instruction(tuple(row)) for row in connection.execute(unfinished)]
    finished = query.where(entries.c.finished_at.is_not(None))
    if cursor is not None:
        finished = finished.where(entries.c.seq < machine_rows.number_of(cursor))
    if limit is not None:
        finished = finished.limit(limit + 1)
    rows = connection.execute(finished).all()
    has_more = limit is not None and len(rows) > limit
    page = [history.instruction(tuple(row)) for row in rows[:limit]]
    return [*found, *page], str(page[-1].seq) if has_more and page else None


def _for_accept(connection: Connection, account: str, machine: str) -> Row[Any]:
    query = (
        select(
            machines.c.id,
            machines.c.account_id,
            machines.c.ready,
            machines.c.next_seq,
            machines.c.next_position,
            machines.c.line,
            machines.c.parked_reason,
            ANY_QUARANTINED.label("quarantined"),
        )
        .join(accounts, accounts.c.id == machines.c.account_id)
        .where(machines.c.name == machine, accounts.c.name == account)
    )
    row = connection.execute(query).first()
    if row is None:
        raise MachineNotFound
    return cast("Row[Any]", row)


def _earlier(connection: Connection, account_id: int, idempotency: Idempotency | None) -> Accepted | None:
    """The work of an earlier request with this key."""
    earlier = None if idempotency is None else repeats.earlier_work(connection, account_id, idempotency)
    if earlier is None or earlier.entry_id is None:
        return None
    entry = log.by_id(connection, earlier.entry_id)
    seq = entry.seq if entry.target is None else entry.target
    if seq is None:
        raise AssertionError("an idempotency key belongs to a command, or to what is for one")
    return Accepted(seq, entry, repeated=True)


def _refuse_unready(connection: Connection, row: Row[Any]) -> None:
    if row.parked_reason is not None:
        raise MachineParked(f"The machine is parked: {row.parked_reason}")
    if row.quarantined:
        refuse_quarantined(connection, row.id)


def _running(connection: Connection, machine_id: int, seq: int) -> CommandSpec:
    """The command of a seq. Raises `CommandNotFound`, `CommandNotRunning`."""
    row = connection.execute(
        select(entries.c.kind, entries.c.code, entries.c.finished_at).where(
            entries.c.machine_id == machine_id, entries.c.seq == seq
        )
    ).first()
    if row is None or row.kind != EntryKind.COMMAND:
        raise CommandNotFound
    if row.finished_at is not None:
        raise CommandNotRunning
    return CommandSpec.from_text(row.code)


def _accept_for(
    connection: Connection, row: Row[Any], kind: EntryKind, seq: int, text: str, idempotency: Idempotency | None
) -> Accepted:
    entry = Entry(id=0, kind=kind, seq=None, position=None, attempt=0, timeout_seconds=0, code=text, target=seq)
    return _accept(connection, row, entry, seq, idempotency)


def _accept(connection: Connection, row: Row[Any], entry: Entry, seq: int, idempotency: Idempotency | None) -> Accepted:
    entry = accept_beside(
        connection,
        row.id,
        entry,
        ready=bool(row.ready),
        position=row.next_position,
        line=row.line,
        next_seq=row.next_seq + entry.kind.has_seq,
    )
    if idempotency is not None:
        repeats.bind(connection, row.account_id, idempotency, machine_id=row.id, entry_id=entry.id)
    return Accepted(seq, entry, repeated=False)
