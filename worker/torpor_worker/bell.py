"""How a machine's task is woken: one cheap waiter with a time limit."""

from __future__ import annotations

import asyncio


class Bell:
    """Rung by anyone, awaited by one task. A ring while nobody waits is kept; many rings are one."""

    __slots__ = ("_loop", "_rung", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, until: float | None = None) -> None:
        """Return when rung, or at `until` in the loop's time (never for None)."""
        if not self._rung:
            self._waiter = self._loop.create_future()
            alarm = None if until is None else self._loop.call_at(until, self.ring)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if alarm is not None:
                    alarm.cancel()
        self._rung = False
