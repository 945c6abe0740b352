"""Room for awake machines: memory in use, and who falls asleep to make some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from torpor_worker.config import WorkerConfig
from torpor_worker.errors import CannotWake

LEAST_BYTES = 32 * 1024 * 1024
"""What a sandbox with an empty interpreter takes, about."""


class Admission:
    """Lets machines wake in the order of asking, as long as all that are awake fit into the memory."""

    def __init__(
        self,
        config: WorkerConfig,
        used_bytes: Callable[[], int],
        free_some: Callable[[], Awaitable[bool]],
    ) -> None:
        """`used_bytes`: of all that are awake; `free_some`: put the longest idle to sleep, False if none is idle."""
        self._config = config
        self._used_bytes = used_bytes
        self._free_some = free_some
        self._line = asyncio.Lock()
        self._slots = asyncio.Semaphore(config.wakes_at_once)
        self._promised_bytes = 0
        self._asking = 0

    @property
    def busy(self) -> bool:
        """Whether machines are being woken, or wait for room."""
        return self._asking > 0

    def has_spare(self, needed_bytes: int) -> bool:
        """Whether something that nobody waits for may be there beside, with a quarter of the memory left free."""
        used = self._used_bytes() + self._promised_bytes
        return used + needed_bytes <= self._config.total_memory_bytes * 3 // 4

    @asynccontextmanager
    async def room(self, needed_bytes: int) -> AsyncIterator[None]:
        """Wait for room, and count it as used until the sandbox is there. Raises `CannotWake`."""
        needed_bytes = max(needed_bytes, LEAST_BYTES)
        self._asking += 1
        try:
            async with self._slots:
                await self._promise(needed_bytes)
                try:
                    yield
                finally:
                    self._promised_bytes -= needed_bytes
        finally:
            self._asking -= 1

    async def _promise(self, needed_bytes: int) -> None:
        try:
            async with asyncio.timeout(self._config.admission_seconds), self._line:
                while not self._fits(needed_bytes):
                    if not await self._free_some():
                        await asyncio.sleep(min(0.1, self._config.admission_seconds / 10))
                self._promised_bytes += needed_bytes
        except TimeoutError as error:
            raise CannotWake("All memory for awake machines is in use by machines that are busy.") from error

    def _fits(self, needed_bytes: int) -> bool:
        used = self._used_bytes() + self._promised_bytes
        # One machine always fits: a limit below one machine's use must not stop everything.
        return used == 0 or used + needed_bytes <= self._config.total_memory_bytes

    async def relieve(self) -> None:
        """Put machines to sleep, the longest idle first, while those that are awake use too much."""
        while self._used_bytes() > self._config.total_memory_bytes:
            if not await self._free_some():
                return
