"""Idempotency keys: a repeat of a request joins the earlier one's work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update
from sqlalchemy.sql import ColumnElement

from torpor_api.errors import IdempotencyKeyReused
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


def earlier_work(connection: Connection, account_id: int, key: Idempotency) -> Work | None:
    """What was done under the key, None if nothing. Raises `IdempotencyKeyReused` for another request's key."""
    row = connection.execute(select(idempotency).where(_row(account_id, key))).first()
    if row is None or row.created_at < now() - KEPT_MICROSECONDS:
        return None
    if row.body_sha256 != key.body_sha256:
        raise IdempotencyKeyReused
    return Work(row.machine_id, row.entry_id, None if row.answer is None else json.loads(row.answer))


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
    values: dict[str, Any] = {"machine_id": machine_id, "entry_id": entry_id}
    values = {name: value for name, value in values.items() if value is not None}
    if answer is not None:
        values["answer"] = json.dumps(answer)
    _prune(connection)
    known = connection.execute(update(idempotency).where(_row(account_id, key)).values(**values)) if values else None
    if known is None or known.rowcount == 0:
        connection.execute(
            insert(idempotency).values(
                account_id=account_id,
                method=key.method,
                path=key.path,
                key=key.key,
                body_sha256=key.body_sha256,
                created_at=now(),
                **values,
            )
        )


def _prune(connection: Connection) -> None:
    connection.execute(delete(idempotency).where(idempotency.c.created_at < now() - KEPT_MICROSECONDS))


def _row(account_id: int, key: Idempotency) -> ColumnElement[bool]:
    return and_(
        idempotency.c.account_id == account_id,
        idempotency.c.method == key.method,
        idempotency.c.path == key.path,
        idempotency.c.key == key.key,
    )
