"""Machines as rows: made, looked up, listed and deleted."""

from __future__ import annotations

import secrets
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, exists, func, insert, select, update

from torpor_api.errors import AliasTaken, InvalidRequest, MachineNotFound
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger import running, saves
from torpor_api.ledger.database import Statement
from torpor_api.ledger.entries import SEED_BYTES, accept_reseed
from torpor_api.ledger.moments import moment, now
from torpor_api.ledger.notices import COLUMNS, notice
from torpor_api.ledger.rows import Idempotency, MachineRow, MachineSettings, MachineState, Notice
from torpor_api.ledger.schema import (
    accounts,
    entries,
    lines,
    machine_tags,
    machines,
    notices,
    pack_references,
    packs,
    snapshots,
    templates,
)
from torpor_worker.ledger import Durability, Recovery

NAME_ALPHABET = string.ascii_lowercase + string.digits
NAME_LENGTH = 16
MEBIBYTE = 1024 * 1024
LOOKED_UP_AT_ONCE = 500
TAGS_LIMIT = 64

_ACCOUNT = Statement(select(accounts.c.id).where(accounts.c.name == bindparam("account")))
_INSERT = Statement(
    insert(machines).returning(machines.c.id),
    "name",
    "account_id",
    "created_at",
    "memory_bytes",
    "idle_seconds",
    "template",
    "durability",
    "recovery",
    "replay_seconds",
    "alias",
)


def create(
    connection: Connection,
    account: str,
    settings: MachineSettings,
    *,
    idempotency: Idempotency | None,
    alias: str | None = None,
) -> tuple[str, bool]:
    """Make a machine, whose first entry is its reseed: its name, and whether it was there, under the key or alias."""
    account_id = _account_id(connection, account)
    if idempotency is not None:
        earlier = repeats.earlier_work(connection, account_id, idempotency)
        if earlier is not None and earlier.machine_id is not None:
            name = connection.scalar(select(machines.c.name).where(machines.c.id == earlier.machine_id))
            return str(name), True
    if alias is not None and (there := _of_alias(connection, account_id, alias)) is not None:
        return there, True
    name = new_name()
    inserted = _INSERT.first(
        connection,
        name=name,
        account_id=account_id,
        created_at=now(),
        memory_bytes=settings.memory_mb * MEBIBYTE,
        idle_seconds=settings.idle_seconds,
        template=settings.template,
        durability=settings.durability,
        recovery=settings.recovery,
        replay_seconds=settings.replay_seconds,
        alias=alias,
    )
    if inserted is None:
        raise AssertionError("an insert returns its row")
    (machine_id,) = inserted
    if settings.tags:
        rows = [{"machine_id": machine_id, "name": tag, "value": value} for tag, value in settings.tags.items()]
        connection.execute(insert(machine_tags), rows)
    accept_reseed(connection, machine_id, secrets.token_bytes(SEED_BYTES))
    if idempotency is not None:
        repeats.bind(connection, account_id, idempotency, machine_id=machine_id)
    return name, False


def change(
    connection: Connection,
    account: str,
    name: str,
    settings: Mapping[str, Any],
    tags: Mapping[str, str | None],
    *,
    in_use_bytes: int,
) -> None:
    """Change settings and tags; see `SqlLedger.change_machine`."""
    machine_id = identify(connection, account, name)
    of_machine = machines.c.id == machine_id
    changes = dict(settings)
    if (memory_mb := changes.pop("memory_mb", None)) is not None:
        saved_bytes = connection.scalar(
            select(snapshots.c.image_bytes)
            .join(machines, machines.c.id == snapshots.c.machine_id)
            .where(of_machine, snapshots.c.generation == machines.c.head_generation)
        )
        needed_mb = max(in_use_bytes, saved_bytes or 0) // MEBIBYTE + 1
        if memory_mb < needed_mb:
            raise InvalidRequest(f"memory_mb: the machine uses {needed_mb} MiB, and must have at least that.")
        changes["memory_bytes"] = memory_mb * MEBIBYTE
    if (alias := changes.get("alias")) is not None:
        holder = _of_alias(connection, _account_id(connection, account), alias)
        if holder not in (None, name):
            raise AliasTaken(f"The account's machine {holder} is called {alias} already.")
    if changes:
        connection.execute(update(machines).where(of_machine).values(**changes))
    connection.execute(
        delete(machine_tags).where(machine_tags.c.machine_id == machine_id, machine_tags.c.name.in_(tags))
    )
    if set_tags := {tag: value for tag, value in tags.items() if value is not None}:
        rows = [{"machine_id": machine_id, "name": tag, "value": value} for tag, value in set_tags.items()]
        connection.execute(insert(machine_tags), rows)
    count = connection.scalar(select(func.count()).where(machine_tags.c.machine_id == machine_id)) or 0
    if count > TAGS_LIMIT:
        raise InvalidRequest(f"tags: a machine has at most {TAGS_LIMIT}.")


def new_name() -> str:
    """A name for a machine."""
    return "".join(secrets.choice(NAME_ALPHABET) for _ in range(NAME_LENGTH))


def one(connection: Connection, account: str, name: str) -> MachineRow:
    """A machine of the account. Raises `MachineNotFound`."""
    rows = connection.execute(_query(account).where(machines.c.name == name)).all()
    if not rows:
        raise MachineNotFound
    return _machine_rows(connection, rows)[0]


def newest_first(
    connection: Connection, account: str, *, tags: dict[str, str], limit: int | None, cursor: str | None
) -> tuple[list[MachineRow], str | None]:
    """A page of the account's machines that carry all the tags, and the cursor of the next."""
    query = _query(account).order_by(machines.c.id.desc())
    for tag, value in tags.items():
        query = query.where(
            exists().where(
                machine_tags.c.machine_id == machines.c.id, machine_tags.c.name == tag, machine_tags.c.value == value
            )
        )
    if cursor is not None:
        query = query.where(machines.c.id < number_of(cursor))
    if limit is not None:
        query = query.limit(limit + 1)
    rows = connection.execute(query).all()
    has_more = limit is not None and len(rows) > limit
    rows = rows[:limit]
    return _machine_rows(connection, rows), str(rows[-1].id) if has_more and rows else None


def remove(connection: Connection, account: str, name: str) -> None:
    """Delete a machine's rows, and condemn its key and its objects. Raises `MachineNotFound`."""
    machine_id = identify(connection, account, name)
    saves.condemn_all(connection, machine_id, name)
    connection.execute(delete(machines).where(machines.c.id == machine_id))


def identify(connection: Connection, account: str, name: str) -> int:
    """The row id of an account's machine. Raises `MachineNotFound`."""
    machine_id = connection.scalar(
        select(machines.c.id).join(accounts).where(accounts.c.name == account, machines.c.name == name)
    )
    if machine_id is None:
        raise MachineNotFound
    return int(machine_id)


def of_alias(connection: Connection, account: str, alias: str) -> str:
    """The name of the account's machine with this alias. Raises `MachineNotFound`."""
    name = connection.scalar(
        select(machines.c.name).join(accounts).where(accounts.c.name == account, machines.c.alias == alias)
    )
    if name is None:
        raise MachineNotFound
    return str(name)


def _of_alias(connection: Connection, account_id: int, alias: str) -> str | None:
    query = select(machines.c.name).where(machines.c.account_id == account_id, machines.c.alias == alias)
    return connection.scalar(query)


def _account_id(connection: Connection, account: str) -> int:
    row = _ACCOUNT.first(connection, account=account)
    if row is None:
        raise ValueError(f"there is no account {account}")
    return int(row[0])


def names(connection: Connection) -> set[str]:
    """Every machine there is."""
    return set(connection.scalars(select(machines.c.name)))


def names_behind(connection: Connection, after: int, limit: int) -> list[str]:
    """Of the next machines behind the id `after`."""
    query = select(machines.c.name).where(machines.c.id > after).order_by(machines.c.id).limit(limit)
    return list(connection.scalars(query))


def number_of(cursor: str) -> int:
    """The row that a cursor stands for. Raises `InvalidRequest`."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("`cursor` is not one that a list gave out.")
    return int(cursor)


def _query(account: str) -> Select[Any]:
    mine = entries.c.machine_id == machines.c.id
    newer = lines.alias()
    used_at = func.coalesce(entries.c.finished_at, entries.c.started_at, entries.c.accepted_at)
    return (
        select(
            machines,
            accounts.c.name.label("account"),
            exists().where(mine, running.IN_THE_WAY).label("has_unfinished"),
            select(used_at)
            .where(mine, entries.c.seq == machines.c.next_seq - 1)
            .scalar_subquery()
            .label("last_used_at"),
            select(func.coalesce(func.sum(packs.c.size_bytes), 0))
            .where(
                packs.c.object_key.in_(
                    select(pack_references.c.object_key)
                    .where(pack_references.c.machine_id == machines.c.id)
                    .correlate(machines)
                ),
                packs.c.object_key.not_in(select(templates.c.pack_key)),
            )
            .correlate(machines)
            .scalar_subquery()
            .label("stored_bytes"),
            select(snapshots.c.generation)
            .join(lines, and_(lines.c.machine_id == snapshots.c.machine_id, lines.c.undo == snapshots.c.generation))
            .where(
                snapshots.c.machine_id == machines.c.id,
                lines.c.line
                == select(func.max(newer.c.line))
                .where(newer.c.machine_id == machines.c.id, newer.c.undo.is_not(None))
                .scalar_subquery(),
            )
            .scalar_subquery()
            .label("undo"),
        )
        .join(accounts, accounts.c.id == machines.c.account_id)
        .where(accounts.c.name == account)
    )


def _machine_rows(connection: Connection, rows: Iterable[Row[Any]]) -> list[MachineRow]:
    rows = list(rows)
    tags: dict[int, dict[str, str]] = defaultdict(dict)
    told: dict[int, list[Notice]] = defaultdict(list)
    for start in range(0, len(rows), LOOKED_UP_AT_ONCE):
        ids = [row.id for row in rows[start : start + LOOKED_UP_AT_ONCE]]
        for tag in connection.execute(select(machine_tags).where(machine_tags.c.machine_id.in_(ids))):
            tags[tag.machine_id][tag.name] = tag.value
        query = select(notices.c.machine_id, *COLUMNS).where(notices.c.machine_id.in_(ids)).order_by(notices.c.id)
        for machine_id, *columns in connection.execute(query):
            told[machine_id].append(notice(*columns))
    return [
        MachineRow(
            name=row.name,
            alias=row.alias,
            account=row.account,
            created_at=moment(row.created_at),
            tags=tags[row.id],
            memory_mb=row.memory_bytes // MEBIBYTE,
            idle_seconds=row.idle_seconds,
            recovery=Recovery(row.recovery),
            replay_seconds=row.replay_seconds,
            template=row.template,
            durability=Durability(row.durability),
            state=_state(row),
            parked_reason=row.parked_reason,
            has_pending_instruction=bool(row.has_unfinished),
            generation=row.head_generation,
            last_used_at=moment(row.created_at if row.last_used_at is None else row.last_used_at),
            stored_bytes=row.stored_bytes,
            undo=row.undo,
            lost_before=row.rebuilt_seq,
            notices=told[row.id],
        )
        for row in rows
    ]


def _state(row: Row[Any]) -> MachineState:
    if row.parked_reason is not None:
        return "parked"
    if row.session_id is None:
        return "asleep"
    if row.ready:
        return "awake"
    return "recovering" if row.recovering else "waking"
