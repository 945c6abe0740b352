"""What the supervisor has to say to the host: frames on their way, and those kept until they are durable there."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import Any

from . import frames, handover
from .frames import FrameType

WINDOW_BYTES = 1 << 20
COMMANDS_BYTES = WINDOW_BYTES // 2
"""Of the window, what commands' output may take: the interpreter is heard however much they say."""
GATHER_SECONDS = 0.002
"""How long a little output waits for more, or for the result, so that the host is woken once for all of it."""
TYPE_PLACE = 3
"""Of the type in a frame."""


class Outbox:
    """Frames in the order in which they were said. Nothing here waits for the host."""

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque()
        self._kept: dict[int, bytes] = {}
        """Frames that are not acknowledged, by serial, in order."""
        self._kept_bytes = 0
        self._commands_bytes = 0
        """Of the kept ones, those with commands' output."""
        self._serial = 0
        self.urgent = False
        """Whether anything in it is not to wait for what may come next."""
        self.write_at = 0.0
        """When what is not urgent is to be written."""

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def is_due(self) -> bool:
        """Whether there is anything to be written now."""
        return bool(self._pending) and (self.urgent or time.monotonic() >= self.write_at)

    @property
    def has_room(self) -> bool:
        """Whether more may be kept; if not, nobody is listened to until the host has acknowledged some."""
        return self._kept_bytes < WINDOW_BYTES

    @property
    def has_room_for_commands(self) -> bool:
        """Whether more output of commands may be kept."""
        return self._commands_bytes < COMMANDS_BYTES and self.has_room

    @property
    def is_behind(self) -> bool:
        """Whether the host has so much to read that what nobody must hear should wait."""
        return sum(map(len, self._pending)) >= WINDOW_BYTES

    def gather(self) -> None:
        """What is kept next may wait a little for what follows it."""
        if not self._pending:
            self.write_at = time.monotonic() + GATHER_SECONDS

    def say(self, kind: FrameType, body: bytes, number: int = -1) -> None:
        """Say something that is for the present host only."""
        self._pending.append(frames.encode(kind, number, body))
        self.urgent = True

    def keep(self, kind: FrameType, body: bytes, *, urgent: bool = True) -> None:
        """Say something that is said again to each host until one has acknowledged it."""
        frame = frames.encode(kind, self._serial, body)
        self._kept[self._serial] = frame
        self._count(frame, 1)
        self._serial += 1
        self._pending.append(frame)
        self.urgent = self.urgent or urgent

    def notice(self, code: str, message: str) -> None:
        """Keep a notice for the user."""
        self.keep(FrameType.NOTICE, json.dumps({"code": code, "message": message}).encode())

    def acknowledge(self, serial: int) -> None:
        """All up to this serial is durable."""
        acknowledged = []
        for kept in self._kept:
            if kept > serial:
                break
            acknowledged.append(kept)
        for kept in acknowledged:
            self._count(self._kept.pop(kept), -1)

    def _count(self, frame: bytes, sign: int) -> None:
        self._kept_bytes += sign * len(frame)
        if frame[TYPE_PLACE] == FrameType.COMMAND_OUTPUT:
            self._commands_bytes += sign * len(frame)

    def begin_again(self, nonce: bytes, kind: FrameType, body: bytes) -> None:
        """Drop what was on its way, and say to a new host: nonce, this frame, and all that is kept."""
        self._pending.clear()
        self._pending.append(nonce)
        self.say(kind, body)
        self._pending.extend(self._kept.values())

    def write(self, fd: int) -> None:
        """Write what can be written without waiting. Raises `OSError` where nobody reads."""
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        written = 0
        try:
            written = os.write(fd, data)
        except BlockingIOError:
            pass
        finally:
            self.urgent = written < len(data)
            if self.urgent:
                pending.append(data[written:])

    def handed_over(self) -> dict[str, Any]:
        """For the supervisor's successor."""
        return {
            "pending": handover.pack(b"".join(self._pending)),
            "kept": [[serial, handover.pack(frame)] for serial, frame in self._kept.items()],
            "serial": self._serial,
        }

    def take_over(self, fields: dict[str, Any]) -> None:
        """Begin with what another one had."""
        if fields["pending"]:
            self._pending.append(handover.unpack(fields["pending"]))
            self.urgent = True
        self._kept = {serial: handover.unpack(frame) for serial, frame in fields["kept"]}
        for frame in self._kept.values():
            self._count(frame, 1)
        self._serial = fields["serial"]
