"""Requests that carry an idempotency key and change no log: each takes effect once, and repeats get its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from torpor_api.errors import IdempotencyKeyReused, InvalidRequest
from torpor_api.ledger import Idempotency, SqlLedger

Answer = dict[str, Any]
KEY_LIMIT = 255


def idempotency_of(key: str | None, method: str, path: str, body_sha256: str) -> Idempotency | None:
    """The idempotency of a request, None if it carries no key. Raises `InvalidRequest`."""
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_LIMIT or not key.isascii() or not key.isprintable():
        raise InvalidRequest(f"Idempotency-Key: write 1 to {KEY_LIMIT} visible ASCII characters.")
    return Idempotency(key=key, method=method, path=path, body_sha256=body_sha256)


class Once:
    """Joins repeats to work that is under way here, and remembers answers in the ledger."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, str, str, str], tuple[str, asyncio.Task[Answer]]] = {}

    async def do(
        self, ledger: SqlLedger, account: str, idempotency: Idempotency | None, work: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """The answer of `work`, or that of the first request with this key. Raises `IdempotencyKeyReused`.

        What `work` raises is not remembered. It goes on when the caller is cancelled, if it has a key.
        """
        if idempotency is None:
            return await work()
        place = (account, idempotency.method, idempotency.path, idempotency.key)
        known = self._under_way.get(place)
        if known is None:
            task = asyncio.create_task(self._first(ledger, account, idempotency, work), name="once")
            self._under_way[place] = (idempotency.body_sha256, task)
            task.add_done_callback(lambda _: self._under_way.pop(place))
        else:
            fingerprint, task = known
            if fingerprint != idempotency.body_sha256:
                raise IdempotencyKeyReused
        return await asyncio.shield(task)

    async def _first(
        self, ledger: SqlLedger, account: str, idempotency: Idempotency, work: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        answer = await ledger.recall(account, idempotency)
        if answer is None:
            answer = await work()
            await ledger.remember(account, idempotency, answer)
        return answer
