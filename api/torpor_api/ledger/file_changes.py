"""Changes of files in the log: like a reseed they have a position, and are finished, from the beginning.

What they write lies beside the ledger, named by a key, and is given up once no recovery can need it.
Conditions of docs/protocol: LOGGED_BEFORE_MADE, LOGGED_BEHIND_ALL, CARRIED_OVER, TWO_SNAPSHOTS.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, exists, insert, or_, select, update

from torpor_api.ledger import entries as log
from torpor_api.ledger import expiry
from torpor_api.ledger.moments import now
from torpor_api.ledger.schema import accounts, entries, machines
from torpor_worker.ledger import Entry, EntryKind

KEPT_MICROSECONDS: Final = 3600 * 1_000_000
"""For so long a rollback or a fork to any `seq` finds what was written, as it finds every snapshot."""
KEPT_BYTES: Final = 1 << 30
"""Of one machine's, how much may be kept only for that."""
AT_ONCE: Final = 200

_IS_CHANGE = entries.c.kind == EntryKind.FILE


def write(
    connection: Connection,
    machine_id: int,
    text: str,
    body: str | None,
    body_bytes: int,
    *,
    behind: int,
) -> Entry | None:
    """See `Ledger.log_change`."""
    in_front = exists().where(
        entries.c.machine_id == machine_id, entries.c.position > behind, entries.c.rolled_back == 0
    )
    if connection.scalar(select(in_front)):
        return None
    return _insert(connection, machine_id, text, body, body_bytes)


def _insert(connection: Connection, machine_id: int, text: str, body: str | None, body_bytes: int) -> Entry:
    position, line = log.allot_position(connection, machine_id)
    moment = now()
    entry_id = connection.scalar(
        insert(entries)
        .values(
            machine_id=machine_id,
            kind=EntryKind.FILE,
            position=position,
            line=line,
            attempt=1,
            timeout_seconds=0,
            code=text,
            accepted_at=moment,
            started_at=moment,
            finished_at=moment,
            body=body,
            body_bytes=None if body is None else body_bytes,
        )
        .returning(entries.c.id)
    )
    if entry_id is None:
        raise AssertionError("an insert returns its row")
    return Entry(entry_id, EntryKind.FILE, None, position, 1, 0, code=text, body=body)


def knows(connection: Connection, machine_id: int, text: str) -> bool:
    """See `Ledger.knows_change`."""
    query = select(entries.c.id).where(
        entries.c.machine_id == machine_id,
        _IS_CHANGE,
        entries.c.code == text,
        entries.c.undone == 0,
        entries.c.rolled_back == 0,
    )
    return connection.scalar(query.limit(1)) is not None


def undo(connection: Connection, machine_id: int, position: int) -> None:
    """See `Ledger.undo_change`."""
    connection.execute(
        update(entries)
        .where(entries.c.machine_id == machine_id, entries.c.position == position, _IS_CHANGE)
        .values(undone=1)
    )


def behind(connection: Connection, machine_id: int, position: int) -> list[Entry]:
    """Those above a position that are not left behind yet, and that were made."""
    return [
        one for one in log.behind(connection, machine_id, position) if one.kind is EntryKind.FILE and not one.undone
    ]


def carry_over(connection: Connection, machine_id: int, changes: Collection[Entry]) -> None:
    """Write changes that a recovery leaves on another line into the log once more, in their order."""
    for change in changes:
        size = connection.scalar(select(entries.c.body_bytes).where(entries.c.id == change.id)) or 0
        copy = _insert(connection, machine_id, change.code, change.body, size)
        if change.expired:
            connection.execute(update(entries).where(entries.c.id == copy.id).values(expired=1))


def machines_with_bodies(connection: Connection, after: int, limit: int) -> list[int]:
    """Ids of the next machines behind an id whose log refers to bodies; parked ones are left alone."""
    query = (
        select(entries.c.machine_id)
        .distinct()
        .join(machines, machines.c.id == entries.c.machine_id)
        .where(entries.c.body.is_not(None), entries.c.machine_id > after, machines.c.parked_reason.is_(None))
    )
    return list(connection.scalars(query.order_by(entries.c.machine_id).limit(limit)))


def release(connection: Connection, machine_id: int) -> None:
    """Give up bodies that no recovery of a machine can need, and that are old, or too many."""
    floor = expiry.floor(connection, machine_id)
    rows = connection.execute(
        select(entries.c.id, entries.c.body, entries.c.body_bytes, entries.c.finished_at, entries.c.undone)
        .where(
            entries.c.machine_id == machine_id,
            entries.c.body.is_not(None),
            or_(entries.c.undone == 1, entries.c.position <= floor),
        )
        .order_by(entries.c.position.desc())
    ).all()
    gone, kept_bytes = [], 0
    for row in rows:
        kept_bytes += row.body_bytes or 0
        if row.undone or row.finished_at < now() - KEPT_MICROSECONDS or kept_bytes > KEPT_BYTES:
            gone.append(row)
    for start in range(0, len(gone), AT_ONCE):
        ids = [row.id for row in gone[start : start + AT_ONCE]]
        connection.execute(update(entries).where(entries.c.id.in_(ids)).values(body=None, body_bytes=None, expired=1))


def owners(connection: Connection) -> dict[str, str]:
    """The account of each body that a log refers to."""
    query = (
        select(entries.c.body, accounts.c.name)
        .distinct()
        .join(machines, machines.c.id == entries.c.machine_id)
        .join(accounts, accounts.c.id == machines.c.account_id)
        .where(entries.c.body.is_not(None))
    )
    return {str(key): str(account) for key, account in connection.execute(query)}


def unreferred(connection: Connection, keys: Collection[str]) -> list[str]:
    """Those that no log refers to."""
    some, referred = sorted(keys), set[str]()
    for start in range(0, len(some), AT_ONCE):
        query = select(entries.c.body).where(entries.c.body.in_(some[start : start + AT_ONCE]))
        referred |= {str(key) for key in connection.scalars(query)}
    return [key for key in some if key not in referred]
