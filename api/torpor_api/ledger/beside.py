"""What is accepted beside instructions, and waits for none: commands, and what is sent to what runs.

Condition of docs/protocol: IN_ITS_TURN.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection, Row, select

from torpor_api.errors import MachineNotFound, MachineParked
from torpor_api.ledger import entries as log
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger.entries import accept_beside
from torpor_api.ledger.rows import Accepted, Idempotency
from torpor_api.ledger.runtimes import ANY_QUARANTINED, refuse_quarantined
from torpor_api.ledger.schema import accounts, machines
from torpor_worker.ledger import Entry, EntryKind


def for_accept(connection: Connection, account: str, machine: str) -> Row[Any]:
    """What must be known of the account's machine. Raises `MachineNotFound`."""
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


def earlier_of(connection: Connection, account_id: int, idempotency: Idempotency | None) -> Accepted | None:
    """The work of an earlier request with this key."""
    earlier = None if idempotency is None else repeats.earlier_work(connection, account_id, idempotency)
    if earlier is None or earlier.entry_id is None:
        return None
    entry = log.by_id(connection, earlier.entry_id)
    seq = entry.seq if entry.target is None else entry.target
    if seq is None:
        raise AssertionError("an idempotency key belongs to what has a seq, or is for it")
    return Accepted(seq, entry, repeated=True)


def refuse_unready(connection: Connection, row: Row[Any]) -> None:
    """Raise `MachineParked`, or `RuntimeQuarantined`, for a machine that takes nothing."""
    if row.parked_reason is not None:
        raise MachineParked(f"The machine is parked: {row.parked_reason}")
    if row.quarantined:
        refuse_quarantined(connection, row.id)


def accept_for(
    connection: Connection, row: Row[Any], kind: EntryKind, seq: int, text: str, idempotency: Idempotency | None
) -> Accepted:
    """Write what is for something that runs, `seq`, into the log."""
    entry = Entry(id=0, kind=kind, seq=None, position=None, attempt=0, timeout_seconds=0, code=text, target=seq)
    return accept_one(connection, row, entry, seq, idempotency)


def accept_one(
    connection: Connection, row: Row[Any], entry: Entry, seq: int, idempotency: Idempotency | None
) -> Accepted:
    """Write an entry into the log, started if the machine is awake; `seq` is what is answered.

    Not before what waits already: it may be for that, or come behind it.
    """
    entry = accept_beside(
        connection,
        row.id,
        entry,
        ready=bool(row.ready) and not log.waits_beside(connection, row.id),
        position=row.next_position,
        line=row.line,
        next_seq=row.next_seq + entry.kind.has_seq,
    )
    if idempotency is not None:
        repeats.bind(connection, row.account_id, idempotency, machine_id=row.id, entry_id=entry.id)
    return Accepted(seq, entry, repeated=False)
