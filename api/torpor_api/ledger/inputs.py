"""What an instruction that runs is given to read, beside what came with it.

Condition of docs/protocol: WITH_ITS_CODE.
"""

from __future__ import annotations

import json
from dataclasses import replace

from sqlalchemy import Connection, and_, exists, func, select, update

from torpor_api.errors import InstructionNotFound, InstructionNotRunning, StdinClosed, StdinFull
from torpor_api.ledger import entries as log
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger.beside import accept_for, earlier_of, for_accept, refuse_unready
from torpor_api.ledger.rows import Accepted, Idempotency
from torpor_api.ledger.schema import entries
from torpor_worker.command import CommandInput
from torpor_worker.ledger import Entry, EntryKind
from torpor_worker.stdin import Stdin

LIMIT_BYTES = 16 << 20
"""All of it stays in the log, and waits in the guest until it is read."""
FIRST_LIMIT_BYTES = 1 << 20
"""Of what comes with the code: it goes to the guest in one frame."""


def accept(
    connection: Connection,
    account: str,
    machine: str,
    seq: int,
    piece: CommandInput,
    *,
    idempotency: Idempotency | None,
) -> Accepted:
    """Write input for an instruction into the log; see `ApiSide.accept_input`."""
    row = for_accept(connection, account, machine)
    if (earlier := earlier_of(connection, row.account_id, idempotency)) is not None:
        return earlier
    refuse_unready(connection, row)
    reader = _reader(connection, row.id, seq)
    mine = and_(entries.c.machine_id == row.id, entries.c.kind == EntryKind.INPUT, entries.c.target == seq)
    if reader.position is None and not connection.scalar(select(exists().where(mine))):
        entry = _add(connection, reader, piece)
        if idempotency is not None:
            repeats.bind(connection, row.account_id, idempotency, machine_id=row.id, entry_id=entry.id)
        return Accepted(seq, entry, repeated=False)
    last = connection.scalar(select(entries.c.code).where(mine).order_by(entries.c.id.desc()).limit(1))
    if last is not None and json.loads(last)["close"]:
        raise StdinClosed
    known = connection.scalar(select(func.coalesce(func.sum(func.length(entries.c.code)), 0)).where(mine))
    if int(known or 0) * 3 // 4 + len(piece.data) > LIMIT_BYTES:  # in base64
        raise StdinFull
    return accept_for(connection, row, EntryKind.INPUT, seq, piece.to_text(), idempotency)


def _reader(connection: Connection, machine_id: int, seq: int) -> Entry:
    """The instruction that will read it, or does."""
    row = connection.execute(
        select(entries.c.id, entries.c.kind, entries.c.finished_at, entries.c.stdin_open).where(
            entries.c.machine_id == machine_id, entries.c.seq == seq
        )
    ).first()
    if row is None or row.kind != EntryKind.EXECUTE:
        raise InstructionNotFound
    if row.finished_at is not None:
        raise InstructionNotRunning
    if not row.stdin_open:
        raise StdinClosed
    return log.by_id(connection, row.id)


def _add(connection: Connection, reader: Entry, piece: CommandInput) -> Entry:
    """Let it come with the code, which no guest has been sent yet."""
    text = ("" if reader.stdin is None else reader.stdin.text) + piece.data.decode()
    if len(text.encode()) > FIRST_LIMIT_BYTES:
        raise StdinFull("The instruction has not begun, and was given as much to read as one may be until then.")
    connection.execute(
        update(entries).where(entries.c.id == reader.id).values(stdin=text, stdin_open=int(not piece.close))
    )
    return replace(reader, stdin=Stdin(text, not piece.close))
