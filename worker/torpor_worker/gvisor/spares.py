"""Containers that were created in advance and have not started: whatever image comes is restored into one of them."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from torpor_worker.gvisor.sandbox import GVisorSandbox
from torpor_worker.sandbox import Limits, SandboxError

MACHINE = "spare"
"""Stands where a sandbox has its machine's name."""
LIMITS = Limits(memory_bytes=1024**3)
"""Until a machine takes it. Nothing runs in it before."""


class Spares:
    """All have the one spec that every sandbox has, so that any of them takes any image of the runtime."""

    def __init__(self) -> None:
        self._waiting: deque[GVisorSandbox] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def memory_bytes(self) -> int:
        """What their processes need; a container that has not started has no memory file of its own."""
        return sum(sandbox.overhead_bytes() for sandbox in self._waiting)

    def add(self, sandbox: GVisorSandbox) -> None:
        """Let one wait here."""
        self._waiting.append(sandbox)

    async def take(self, machine: str, limits: Limits) -> GVisorSandbox | None:
        """The one that waits longest, which is the machine's from now on; None if none lives."""
        while self._waiting:
            sandbox = self._waiting.popleft()
            try:
                sandbox.belong_to(machine, limits)
            except (SandboxError, OSError):
                await _destroy(sandbox)
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
        dead = [sandbox for sandbox in self._waiting if sandbox.overhead_bytes() == 0]
        for sandbox in dead:
            self._waiting.remove(sandbox)
        for sandbox in dead:
            await _destroy(sandbox)


async def _destroy(sandbox: GVisorSandbox) -> None:
    # What cannot be removed is left to the next start's sweep of leftovers.
    with suppress(SandboxError):
        await sandbox.destroy()
