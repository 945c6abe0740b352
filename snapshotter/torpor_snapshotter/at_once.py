"""Several calls at the same time, which succeed together or end together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Answer = TypeVar("Answer")


async def all_of(calls: Iterable[Callable[[], Awaitable[Answer]]], limit: int) -> list[Answer]:
    """Every answer, in order; the first failure, when all others have ended, if there is one.

    At most `limit` of them are under way at a time.
    """
    room = asyncio.Semaphore(limit)

    async def when_there_is_room(call: Callable[[], Awaitable[Answer]]) -> Answer:
        async with room:
            return await call()

    tasks = [asyncio.create_task(when_there_is_room(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
