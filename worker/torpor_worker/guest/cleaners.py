"""Processes that remove what killed workers had prepared; one that is killed as well is started again by and by."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, NamedTuple

from . import file_worker

TRIES = 8
FIRST_PAUSE_SECONDS = 0.1
"""Twice as long after each try: 13 s in all, for a user who kills every process that there is."""


class Part(NamedTuple):
    """What is to be removed."""

    fields: dict[str, Any]
    token: str
    tries: int = 0


class Cleaners:
    """All that there are."""

    def __init__(self) -> None:
        self._running: dict[int, Part] = {}
        self._waiting: list[tuple[float, Part]] = []

    @property
    def pids(self) -> set[int]:
        """Those that run."""
        return set(self._running)

    @property
    def deadline(self) -> float:
        """When the next one is to be started."""
        return min((at for at, _ in self._waiting), default=float("inf"))

    def start(self, part: Part) -> None:
        """Remove a part; if no process can be had it stays, hidden."""
        with contextlib.suppress(OSError):
            self._running[file_worker.start_cleaning(part.fields, part.token)] = part

    def serve(self) -> None:
        """Start those whose pause is over."""
        now = time.monotonic()
        due = [each for each in self._waiting if each[0] <= now]
        self._waiting = [each for each in self._waiting if each[0] > now]
        for _, part in due:
            self.start(part)

    def reaped(self, pid: int, status: int) -> None:
        """A process has ended."""
        part = self._running.pop(pid, None)
        if part is not None and os.WIFSIGNALED(status) and part.tries < TRIES:
            at = time.monotonic() + FIRST_PAUSE_SECONDS * 2**part.tries
            self._waiting.append((at, part._replace(tries=part.tries + 1)))
