"""Idempotency keys: a repeat of a request joins the earlier one's work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from torpor_api.errors import IdempotencyKeyReused
from torpor_api.ledger.database import Statement
from torpor_api.ledger.moments import now
from torpor_api.ledger.rows import Idempotency
from torpor_api.ledger.schema import idempotency

KEPT_MICROSECONDS = 24 * 60 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """What an earlier request with the same key did."""

    machine_id: int | None
    entry_id: int | None
    answer: dict[str, Any] | None


_EARLIER = Statement(
    select(
        idempotency.c.body_sha256,
        idempotency.c.created_at,
        idempotency.c.machine_id,
        idempotency.c.entry_id,
        idempotency.c.answer,
    ).where(
        idempotency.c.account_id == bindparam("of_account"),
        idempotency.c.method == bindparam("of_method"),
        idempotency.c.path == bindparam("of_path"),
        idempotency.c.key == bindparam("of_key"),
    )
)
_PRUNE = Statement(delete(idempotency).where(idempotency.c.created_at < bindparam("oldest_kept")))
_COLUMNS = ("account_id", "method", "path", "key", "body_sha256", "created_at", "machine_id", "entry_id", "answer")
_INSERT = insert(idempotency)
_BIND = Statement(
    _INSERT.on_conflict_do_update(
        index_elements=["account_id", "method", "path", "key"],
        set_={
            column: func.coalesce(idempotency.c[column], _INSERT.excluded[column])
            for column in ("machine_id", "entry_id", "answer")
        },
    ),
    *_COLUMNS,
)


def earlier_work(connection: Connection, account_id: int, key: Idempotency) -> Work | None:
    """What was done under the key, None if nothing. Raises `IdempotencyKeyReused` for another request's key."""
    row = _EARLIER.first(connection, of_account=account_id, of_method=key.method, of_path=key.path, of_key=key.key)
    if row is None:
        return None
    body_sha256, created_at, machine_id, entry_id, answer = row
    if created_at < now() - KEPT_MICROSECONDS:
        return None
    if body_sha256 != key.body_sha256:
        raise IdempotencyKeyReused
    return Work(machine_id, entry_id, None if answer is None else json.loads(answer))


def bind(
    connection: Connection,
    account_id: int,
    key: Idempotency,
    *,
    machine_id: int | None = None,
    entry_id: int | None = None,
    answer: dict[str, Any] | None = None,
) -> None:
    """Note what is done under the key, beside what is noted already, and forget the keys that are too old."""
    moment = now()
    _PRUNE.run(connection, oldest_kept=moment - KEPT_MICROSECONDS)
    _BIND.run(
        connection,
        account_id=account_id,
        method=key.method,
        path=key.path,
        key=key.key,
        body_sha256=key.body_sha256,
        created_at=moment,
        machine_id=machine_id,
        entry_id=entry_id,
        answer=None if answer is None else json.dumps(answer),
    )
