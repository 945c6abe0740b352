"""Completions: while the interpreter runs nothing else it is asked what could follow at a cursor, and not for long."""

from __future__ import annotations

import signal
import time

from . import channel
from .frames import FrameType
from .interpreter_link import InterpreterLink
from .outbox import Outbox

COMPLETE_SECONDS = 1.0
"""After so long one is interrupted; after the second time nobody waits for it any more."""


class Completions:
    """At most one is asked for at a time, and no instruction is given to the interpreter meanwhile."""

    def __init__(self, out: Outbox, link: InterpreterLink) -> None:
        self._out = out
        self._link = link
        self._number: int | None = None
        """Of the one that the interpreter is at."""
        self._tries = 0
        self.deadline = float("inf")
        """When to `hurry`."""

    @property
    def is_asked(self) -> bool:
        """Whether the interpreter is at one."""
        return self._number is not None

    def ask(self, number: int, body: bytes, *, is_free: bool) -> None:
        """The host wants one; if the interpreter is not free, or knows of none, the answer is that there is none."""
        if not is_free or self.is_asked or self._link.pid is None or self._link.version < channel.COMPLETES:
            self._out.say(FrameType.COMPLETION, b"", number)
            return
        self._link.say(channel.packets(channel.COMPLETE, 0, number, body))
        self._number, self._tries = number, 0
        self.deadline = time.monotonic() + COMPLETE_SECONDS

    def hurry(self) -> None:
        """It takes too long: interrupt it, or wait no more."""
        self._tries += 1
        if self._tries > 2:
            self.end()
        else:
            self._link.signal(signal.SIGINT)
            self.deadline = time.monotonic() + COMPLETE_SECONDS

    def answered(self, number: int, body: bytes) -> None:
        """The interpreter has said what could follow; one that nobody waits for any more is dropped."""
        if number == self._number:
            self.end(body)

    def end(self, body: bytes = b"") -> None:
        """Nobody waits for it any more; without a body there is none."""
        if self._number is not None:
            self._out.say(FrameType.COMPLETION, body, self._number)
        self._number, self.deadline = None, float("inf")
