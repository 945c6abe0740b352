"""What runs while a model waits: progress meanwhile, and its end if the model does not want it any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import anyio
from mcp.server.mcpserver import Context

from ..._events import Event, Stderr, Stdout

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

TICK_SECONDS = 1.0
SILENCE_SECONDS = 5.0
"""After so long without output a client is told that the code still runs: its time-out is for a dead server."""
_LINE_CHARACTERS = 200


class Stream(Protocol[R_co]):
    """What is said by an instruction or a command."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def result(self) -> R_co:
        """What came of it."""
        ...


async def follow(stream: Stream[R], context: Context, end: Callable[[], Awaitable[object]]) -> R:
    """The result. Meanwhile whoever asked for progress is told the last line that was printed.

    Cancelled, it has `end` end what the stream follows.
    """
    progress = Progress(context)
    reading = asyncio.create_task(_read(stream, progress), name="mcp call")
    try:
        while not reading.done():
            await asyncio.wait({reading}, timeout=TICK_SECONDS)
            await progress.tell()
        return reading.result()
    except asyncio.CancelledError:
        await end()
        raise
    finally:
        reading.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({reading})


async def _read(stream: Stream[R], progress: Progress) -> R:
    async for event in stream:
        if isinstance(event, Stdout | Stderr):
            progress.add(event.text)
    return await stream.result()


class Progress:
    """What a client is told while it waits: seconds, which only grow, and words."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._began = self._told = time.monotonic()
        self._printed = ""
        self._news = False

    def add(self, text: str) -> None:
        """What was printed."""
        self._printed = (self._printed + text)[-2 * _LINE_CHARACTERS :]
        self._news = True

    async def tell(self) -> None:
        """Tell the client, if there is anything new or it has heard nothing for long. Not if it did not ask."""
        now = time.monotonic()
        if now - self._told < (TICK_SECONDS if self._news else SILENCE_SECONDS):
            return
        self._told, self._news = now, False
        seconds = round(now - self._began, 1)
        last = self._printed.rstrip().rpartition("\n")[2][-_LINE_CHARACTERS:]
        await self._context.report_progress(seconds, message=last or f"It has been running for {seconds:.0f} s.")
