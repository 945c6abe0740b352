"""How much of this process's time the words of one guest may take: what is more waits in its pipe."""

from __future__ import annotations

import time

SHARE = 0.25
AT_ONCE_SECONDS = 0.1
"""So much may be taken at once by a guest that was quiet before."""

LONGEST_SECONDS = 2.0
"""Well below what a guest has for an answer: who said one large thing must not be taken for dead."""


class Pace:
    """One guest's. Time is that of this thread's work, not of waiting for a processor."""

    def __init__(self) -> None:
        self._left_seconds = AT_ONCE_SECONDS
        self._at = time.monotonic()
        self._began = 0.0

    def begin(self) -> None:
        """Its words are being taken."""
        self._began = time.thread_time()

    def end(self) -> float:
        """They were; how many seconds it is to wait now."""
        now = time.monotonic()
        self._left_seconds = min(AT_ONCE_SECONDS, self._left_seconds + SHARE * (now - self._at))
        self._at = now
        self._left_seconds -= time.thread_time() - self._began
        return min(LONGEST_SECONDS, max(0.0, -self._left_seconds / SHARE))
