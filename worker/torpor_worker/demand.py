"""How many of something should wait in advance: as many as were asked for at once, not long ago."""

from __future__ import annotations

from collections import deque

BURST_SECONDS = 5.0
"""What is asked for within this time is asked for at once: nothing taken is replaced much sooner."""
MEMORY_SECONDS = 600.0
"""For how long a burst is remembered."""
REMEMBERED = 1000
"""At most so many are; a steady stream of calls is not remembered whole."""


class Demand:
    """Remembers when something was asked for. Times are of one monotonic clock, in seconds, given by the caller."""

    def __init__(self, least: int, most: int) -> None:
        """`least` wait even if nobody has asked for any, and never more than `most`."""
        self._least = min(least, most)
        self._most = most
        self._asked: deque[float] = deque(maxlen=REMEMBERED)

    def ask(self, now: float) -> None:
        """One is asked for."""
        self._asked.append(now)

    def wanted(self, now: float) -> int:
        """How many should wait."""
        while self._asked and self._asked[0] < now - MEMORY_SECONDS:
            self._asked.popleft()
        return max(self._least, min(self._most, _busiest(self._asked)))


def _busiest(asked: deque[float]) -> int:
    """The most that were asked for within any `BURST_SECONDS`."""
    most = 0
    burst: deque[float] = deque()
    for at in asked:
        burst.append(at)
        while burst[0] < at - BURST_SECONDS:
            burst.popleft()
        most = max(most, len(burst))
    return most
