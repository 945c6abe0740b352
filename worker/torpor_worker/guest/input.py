"""What the instruction that runs is sent to read while it runs, on its way into a pipe that the interpreter reads."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Any

from . import handover

PIECE_BYTES = 64 << 10


class Input:
    """The supervisor's end of one instruction's standard input, which stays open until it is closed."""

    def __init__(self, seq: int) -> None:
        """For the instruction `seq`. Raises `OSError` if there is no pipe."""
        self.seq = seq
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._waiting: deque[bytes] = deque()
        self._closing = False

    def add(self, data: bytes, *, close: bool) -> None:
        """More to read; with `close` nothing follows. What comes after that is dropped."""
        if self._closing or self._writer < 0:
            return
        if data:
            self._waiting.append(data)
        self._closing = close
        self.write()

    def write(self) -> None:
        """Write what can be written without waiting."""
        try:
            while self._waiting and self._writer >= 0:
                written = os.write(self._writer, self._waiting[0][:PIECE_BYTES])
                rest = self._waiting.popleft()[written:]
                if rest:
                    self._waiting.appendleft(rest)
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            self._close_writer()
            return
        if self._closing:
            self._close_writer()

    @property
    def wanted(self) -> int | None:
        """The descriptor into which more can be written once there is room; None if nothing waits."""
        return self._writer if self._waiting and self._writer >= 0 else None

    def hand_to(self, connection: socket.socket, packet: bytes) -> None:
        """Give the interpreter the end that is read, with a packet. Raises `OSError`, with nothing done."""
        socket.send_fds(connection, [packet], [self._reader] if self._reader >= 0 else [])
        self._close_reader()

    def close(self) -> None:
        """The instruction is over: there is nothing to read any more."""
        self._close_writer()
        self._close_reader()

    def _close_writer(self) -> None:
        self._waiting.clear()
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def _close_reader(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to it."""
        return [fd for fd in (self._reader, self._writer) if fd >= 0]

    def handed_over(self) -> dict[str, Any]:
        """What the supervisor's successor needs to know of it."""
        return {
            "seq": self.seq,
            "reader": self._reader,
            "writer": self._writer,
            "waiting": list(map(handover.pack, self._waiting)),
            "closing": self._closing,
        }

    @classmethod
    def taken_over(cls, fields: dict[str, Any]) -> Input:
        """The same, in the supervisor's successor; without touching a descriptor."""
        taken = cls.__new__(cls)
        taken.seq = fields["seq"]
        taken._reader, taken._writer = fields["reader"], fields["writer"]
        taken._waiting = deque(map(handover.unpack, fields["waiting"]))
        taken._closing = fields["closing"]
        return taken

    def keep_to_itself(self) -> None:
        """Let no process that is started have its descriptors."""
        for fd in self.fds:
            os.set_inheritable(fd, False)
