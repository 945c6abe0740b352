"""One task that keeps every sandbox within its memory limit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from torpor_worker.sandbox import Limits, SandboxError

SHORTEST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
GROWTH_BYTES_PER_SECOND = 2 * 1024**3
"""Faster than a guest was ever seen to take memory (1.3 GB/s); decides when to look again."""

KILLS = 3
GRACE_SECONDS = 1.0
"""How long the kernel in the sandbox may take to free what a killed process had, before the next is killed."""

HARD_EXCESS_BYTES = 1024**3
"""So far over the limit nobody waits for kills."""

SANDBOX_OVERHEAD_BYTES = 256 * 1024**2
"""What the sandbox process may have for itself before it counts as the guest's."""


class Watched(Protocol):
    """What the watcher needs of a sandbox."""

    limits: Limits
    paused: bool
    """Whether its processes are frozen: then nothing grows, and nobody in it can be told to kill."""

    def memory_bytes(self) -> int:
        """What its memory file holds."""
        ...

    def overhead_bytes(self) -> int:
        """What its process needs beside."""
        ...

    async def kill_largest(self, reason: str) -> None:
        """Have the guest kill its largest process."""
        ...

    async def lose(self, reason: str) -> None:
        """Remove it; its receiver is told `reason`."""
        ...


@dataclass(slots=True)
class _Watch:
    due: float = 0.0
    kills: int = 0


class MemoryWatcher:
    """Looks at each sandbox as often as it could reach its limit: every 50 ms near it, once a second far from it."""

    def __init__(self) -> None:
        self._watches: dict[Watched, _Watch] = {}
        self._changed = asyncio.Event()

    def add(self, sandbox: Watched) -> None:
        """Watch a sandbox from now on."""
        self._watches[sandbox] = _Watch()
        self._changed.set()

    def discard(self, sandbox: Watched) -> None:
        """Watch it no longer; nothing happens if it was not watched."""
        self._watches.pop(sandbox, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            for sandbox, watch in list(self._watches.items()):
                if watch.due <= clock():
                    watch.due = clock() + await self._look(sandbox, watch)
            self._changed.clear()
            pause = min((watch.due for watch in self._watches.values()), default=clock() + 60) - clock()
            try:
                async with asyncio.timeout(max(SHORTEST_SECONDS / 2, pause)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _look(self, sandbox: Watched, watch: _Watch) -> float:
        """Act on one sandbox; after how many seconds to look again."""
        if sandbox.paused:
            return LONGEST_SECONDS
        limit = sandbox.limits.memory_bytes
        overhead = max(0, sandbox.overhead_bytes() - SANDBOX_OVERHEAD_BYTES)
        used = sandbox.memory_bytes() + overhead
        if used <= limit + limit // 10:
            watch.kills = 0
            return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, (limit - used) / GROWTH_BYTES_PER_SECOND))
        reason = f"used more than its {limit // 1024**2} MiB of memory"
        if watch.kills == KILLS or used > limit + HARD_EXCESS_BYTES:
            self.discard(sandbox)
            with suppress(SandboxError):  # the receiver is told before; whoever destroys it next hears of this
                await sandbox.lose(reason)
            return LONGEST_SECONDS
        watch.kills += 1
        await sandbox.kill_largest(reason)
        return GRACE_SECONDS
