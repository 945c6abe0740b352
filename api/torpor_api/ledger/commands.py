"""Commands as they are accepted, and listed."""

from __future__ import annotations

import json

from sqlalchemy import Connection, and_, func, select

from torpor_api.errors import (
    CommandInputClosed,
    CommandInputFull,
    CommandNotFound,
    CommandNotRunning,
    TooManyCommands,
)
from torpor_api.ledger import history
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.beside import accept_for, accept_one, earlier_of, for_accept, refuse_unready
from torpor_api.ledger.results import storable
from torpor_api.ledger.rows import Accepted, Idempotency, InstructionRow
from torpor_api.ledger.schema import entries
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
    row = for_accept(connection, account, machine)
    if (earlier := earlier_of(connection, row.account_id, idempotency)) is not None:
        return earlier
    refuse_unready(connection, row)
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
    return accept_one(connection, row, entry, row.next_seq, idempotency)


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
    row = for_accept(connection, account, machine)
    if (earlier := earlier_of(connection, row.account_id, idempotency)) is not None:
        return earlier
    refuse_unready(connection, row)
    spec = _running(connection, row.id, seq)
    mine = and_(entries.c.machine_id == row.id, entries.c.kind == EntryKind.COMMAND_INPUT, entries.c.target == seq)
    last = connection.scalar(select(entries.c.code).where(mine).order_by(entries.c.id.desc()).limit(1))
    closed = last is not None and json.loads(last)["close"] and spec.terminal is None
    if closed or not (spec.stdin_open or spec.terminal is not None):
        raise CommandInputClosed
    known_bytes = connection.scalar(select(func.coalesce(func.sum(func.length(entries.c.code)), 0)).where(mine))
    if int(known_bytes or 0) * 3 // 4 + len(piece.data) > INPUT_LIMIT_BYTES:
        raise CommandInputFull
    return accept_for(connection, row, EntryKind.COMMAND_INPUT, seq, piece.to_text(), idempotency)


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
    row = for_accept(connection, account, machine)
    if (earlier := earlier_of(connection, row.account_id, idempotency)) is not None:
        return earlier
    refuse_unready(connection, row)
    _running(connection, row.id, seq)
    return accept_for(connection, row, EntryKind.COMMAND_SIGNAL, seq, sign.to_text(), idempotency)


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
