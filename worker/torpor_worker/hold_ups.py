"""What instructions wait for their own machine's saves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REMEMBERED = 32
"""Hold-ups that are remembered: more do not come between two instructions of a machine that somebody calls."""


class HoldUps:
    """When a machine could be sent nothing because of a capture. Times are of one monotonic clock, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._past: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Nothing can be sent while this is open."""
        began = self._clock()
        try:
            yield
        finally:
            self._past.append((began, self._clock()))

    def forget(self) -> None:
        """An instruction or a command ended: what comes now was not held up before."""
        self._past.clear()

    def seconds_since(self, moment: float) -> float:
        """For how long of the time since `moment` nothing could be sent."""
        return sum(max(0.0, ended - max(began, moment)) for began, ended in self._past)
