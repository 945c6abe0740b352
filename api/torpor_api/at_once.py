"""The same work for many things, a few of them at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

AT_ONCE: Final = 4
"""Things that are in hand at the same time."""


async def each(things: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work for every thing. The first error ends it all, and is raised."""
    rest = iter(things)

    async def do_the_rest() -> None:
        for thing in rest:
            await work(thing)

    tasks = [asyncio.create_task(do_the_rest(), name=f"at once {number}") for number in range(AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
