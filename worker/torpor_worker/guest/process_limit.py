"""The limit of processes: the user's are counted while anything could start another, and too many are killed."""

from __future__ import annotations

import time
from typing import Any

from . import processes
from .commands import Commands
from .interpreter_link import InterpreterLink

COUNT_SECONDS = 0.25


class ProcessLimit:
    """How many there may be. An idle machine costs nothing: there nothing is counted."""

    def __init__(self, commands: Commands, link: InterpreterLink) -> None:
        self._commands = commands
        self._link = link
        self._limit = 256
        self.deadline = float("inf")
        """When to `count`."""

    def change(self, limit: int) -> None:
        """So many there may be from now on."""
        self._limit = limit
        self.deadline = time.monotonic() + COUNT_SECONDS

    def watch(self) -> None:
        """Something has begun that may start processes."""
        self.deadline = min(self.deadline, time.monotonic() + COUNT_SECONDS)

    def count(self, *, is_active: bool) -> None:
        """Look how many there are; and again in a while, if there are more than one, or `is_active` may start some."""
        pids = processes.of_user()
        if len(pids) > self._limit:
            reason = f"killed with all its children, because there were more than {self._limit} processes"
            # What a command started ends with it; what is there at the next count is the interpreter's doing.
            if not self._commands.kill(reason):
                self._link.kill(reason)
                processes.kill_all_of_user()
        self.deadline = time.monotonic() + COUNT_SECONDS if is_active or len(pids) > 1 else float("inf")

    # The successor.

    def handed_over(self) -> dict[str, Any]:
        """For the supervisor's successor, which counts at once."""
        return {"process_limit": self._limit}

    def take_over(self, fields: dict[str, Any]) -> None:
        """Begin with what another one had."""
        self._limit = fields["process_limit"]
        self.deadline = time.monotonic()
