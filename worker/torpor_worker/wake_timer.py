"""Where the time of a wake goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from torpor_worker.metrics import Metrics

Phase = Literal["lease", "room", "fetch", "assemble", "sandbox", "first_frame", "replay"]

PHASES: Final[tuple[Phase, ...]] = ("lease", "room", "fetch", "assemble", "sandbox", "first_frame", "replay")
"""In order: the right to run the machine, and what its log has behind its head; room in the memory; its snapshot from
the store; what was left to do for the image then; a sandbox with that image in it; the guest's first answer; and what
had to be executed again."""


class WakeTimer:
    """Splits the time since it was made, or since the last phase ended; what is tried again adds up."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds; that of an event loop may stand still between its turns."""
        self._clock = clock
        self._began = self._since = clock()
        self._seconds: dict[Phase, float] = {}

    def ended(self, phase: Phase, *, then: tuple[Phase, float] | None = None) -> None:
        """A phase ended just now; or before `then`, the next one, which took so many seconds and ended just now."""
        now = self._clock()
        later_seconds = 0.0
        if then is not None:
            later_seconds = min(then[1], now - self._since)
            self._add(then[0], later_seconds)
        self._add(phase, now - self._since - later_seconds)
        self._since = now

    def _add(self, phase: Phase, seconds: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    @property
    def milliseconds(self) -> dict[str, float]:
        """Of each phase, to the microsecond; 0 for those that there were not."""
        return {phase: round(self._seconds.get(phase, 0.0) * 1000, 3) for phase in PHASES}

    def observed_by(self, metrics: Metrics) -> None:
        """The wake is over."""
        metrics.wake_seconds.observe(self._since - self._began)
        for phase, seconds in self._seconds.items():
            metrics.wake_phase_seconds.labels(phase).observe(seconds)
