"""Answers to asks for packages: a sandbox is told one after the other; what it does not take is not kept for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from torpor_worker.sandbox import Sandbox, SandboxError

KEPT = 64
"""Of one sandbox, more than its guest waits for. Beyond it the oldest are left out; what was handed in is there."""

Answer = tuple[int, str | None]
"""The ask's number, and the sentence if it was refused."""


class Answers:
    """All that are to be given."""

    def __init__(self) -> None:
        self._waiting: dict[Sandbox, deque[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, sandbox: Sandbox, number: int, refused: str | None) -> None:
        """One more."""
        waiting = self._waiting.get(sandbox)
        if waiting is not None:
            waiting.append((number, refused))
            return
        self._waiting[sandbox] = deque([(number, refused)], KEPT)
        task = asyncio.get_running_loop().create_task(self._give(sandbox), name="answers about packages")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give none any more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _give(self, sandbox: Sandbox) -> None:
        waiting = self._waiting[sandbox]
        try:
            with contextlib.suppress(SandboxError):
                while waiting:
                    number, refused = waiting.popleft()
                    await sandbox.answer_packages(number, refused=refused)
        finally:
            del self._waiting[sandbox]
