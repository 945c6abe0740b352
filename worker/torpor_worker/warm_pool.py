"""Sandboxes restored in advance from a template: a new machine takes one and is there."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import structlog

from torpor_worker.demand import Demand
from torpor_worker.sandbox import Limits, Sandbox, SandboxError

log = structlog.get_logger(__name__)


class WarmPool:
    """Sandboxes that wait for a machine, attached, the longest waiting first; as many as there is demand for."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self._waiting: deque[Sandbox] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def memory_bytes(self) -> int:
        """What they use together."""
        return sum(sandbox.memory_bytes() for sandbox in self._waiting)

    def add(self, sandbox: Sandbox) -> None:
        """Let it wait here."""
        self._waiting.append(sandbox)

    async def take(self, machine: str, limits: Limits) -> Sandbox | None:
        """One that is the machine's from now on; None if none lives."""
        while self._waiting:
            sandbox = self._waiting.popleft()
            try:
                await sandbox.assign(machine, limits)
            except SandboxError as error:
                log.warning("A sandbox in the pool had died", action="warm", error=str(error))
                await _destroy(sandbox)
            except BaseException:
                await asyncio.shield(_destroy(sandbox))
                raise
            else:
                return sandbox
        return None

    async def drop(self) -> bool:
        """Remove one; False if there is none."""
        if not self._waiting:
            return False
        await _destroy(self._waiting.popleft())
        return True

    async def remove_dead(self) -> None:
        """Remove those whose process is gone."""
        dead = [sandbox for sandbox in self._waiting if sandbox.memory_bytes() == 0]
        for sandbox in dead:
            self._waiting.remove(sandbox)
        for sandbox in dead:
            await _destroy(sandbox)


async def _destroy(sandbox: Sandbox) -> None:
    # What cannot be removed is left to the next start's sweep of leftovers.
    with suppress(SandboxError):
        await sandbox.destroy()
