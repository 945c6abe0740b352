"""The supervisor's ends of the two streams to the host, which may be gone for any time and come back as another."""

from __future__ import annotations

import os
import select
import time
from typing import Any

from . import frames, handover
from .outbox import Outbox

READ_BYTES = 64 << 10
"""What a pipe holds. A larger buffer would be mapped and unmapped for every read, which is slow in a sandbox."""
ABSENT_SECONDS = 0.02
"""How long to look away from a stream whose other end is gone."""

STDIN, STDOUT = 0, 1


class HostLink:
    """Frames that come from the host, and the way to it for what is in the outbox."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._reader = frames.FrameReader(frames.HOST_MARKER, restarts=True)
        self._absent_until = 0.0

    def open(self) -> None:
        """Begin, with streams at which nothing waits."""
        os.set_blocking(STDIN, False)
        os.set_blocking(STDOUT, False)

    def deadline(self, now: float) -> float:
        """When to look again though nothing has come."""
        if now < self._absent_until:
            return self._absent_until
        return self._out.write_at if self._out and not self._out.urgent else float("inf")

    def wants(self, now: float) -> list[int]:
        """Descriptors and what to wait for at each, one after the other; none while nobody is there."""
        if now < self._absent_until:
            return []
        wants = [STDIN, select.POLLIN]
        if self._out.urgent:
            wants += (STDOUT, select.POLLOUT)
        return wants

    def read(self, ready: dict[int, int]) -> list[frames.Frame]:
        """What has come."""
        if STDIN not in ready:
            return []
        try:
            data = os.read(STDIN, READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._look_away()
            return []
        try:
            return self._reader.feed(data)
        except frames.ProtocolError:
            return []  # the next hello starts afresh

    def write(self) -> None:
        """Write what is due, as far as there is room."""
        if not self._out.is_due:
            return
        try:
            self._out.write(STDOUT)
        except OSError:
            self._look_away()

    def _look_away(self) -> None:
        self._absent_until = time.monotonic() + ABSENT_SECONDS

    # The successor.

    def handed_over(self) -> dict[str, Any]:
        """For the supervisor's successor: what has come that is no whole frame yet."""
        seeking, buffer = self._reader.rest
        return {"seeking": seeking, "buffer": handover.pack(buffer)}

    def take_over(self, fields: dict[str, Any]) -> None:
        """Begin with what another one had."""
        self._reader.go_on_with(fields["seeking"], handover.unpack(fields["buffer"]))
