"""Times as the tables hold them: microseconds of UTC. For display only, since the clock may jump."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """This moment."""
    return time.time_ns() // 1000


def moment(microseconds: int) -> datetime:
    """A stored time for people."""
    return _EPOCH + timedelta(microseconds=microseconds)
