"""How long somebody waits for a stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ._calls import Call
from ._errors import NotFinished

_EXACT = 0.8
_SHORTEST_SECONDS = 0.02


class Deadline:
    """The end of a wait: every step of it raises `NotFinished` once that has come. None: it never comes."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds
        self._connection_seconds = 0.0

    def limited(self, call: Call) -> Call:
        """The call, which waits for its next bytes no longer than is left."""
        if self._end is None:
            return call
        self._connection_seconds = max(self._left(self._end), _SHORTEST_SECONDS)
        return replace(call, answer_seconds=min(call.answer_seconds, self._connection_seconds))

    def too_patient(self) -> bool:
        """After some bytes came: whether this connection would wait for more of them much longer than is left."""
        if self._end is None:
            return False
        left = max(self._left(self._end), _SHORTEST_SECONDS)
        return left < _EXACT * self._connection_seconds

    def before(self, delay_seconds: float) -> float:
        """A delay, shortened to what is left."""
        return delay_seconds if self._end is None else min(delay_seconds, self._left(self._end))

    def _left(self, end: float) -> float:
        left = end - self._clock()
        if left <= 0:
            raise not_finished(self._seconds)
        return left


def not_finished(seconds: float | None) -> NotFinished:
    """The error of a wait that is over."""
    return NotFinished(f"It is not finished after {seconds} s.", hint="It runs on: wait for it again, or cancel it.")
