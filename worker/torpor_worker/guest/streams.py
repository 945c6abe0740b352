"""Where the user's output goes: `sys.stdout` and `sys.stderr` as packets to the supervisor, in order with displays."""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import socket
import sys
from collections.abc import Iterable

from . import channel

OWN_FD = 1000
"""From here on are the agent's own fds, out of the way of code that closes `range(3, 256)`."""


def own_socket(fd: int) -> socket.socket:
    """The socket at `fd`, moved out of the user's way."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OWN_FD)
    except OSError:
        high = os.dup(fd)
    os.close(fd)
    return socket.socket(fileno=high)


class Output:
    """The interpreter's way to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._send = connection.send
        self._fflush = ctypes.CDLL(None).fflush
        sys.stdout = sys.__stdout__ = Stream(self, channel.STDOUT, 1)
        sys.stderr = sys.__stderr__ = Stream(self, channel.STDERR, 2)

    def send(self, kind: int, seq: int, body: bytes, flags: int = 0) -> None:
        """Send one message; waits while the supervisor's window is full."""
        for packet in channel.packets(kind, flags, seq, body):
            self._send(packet)

    def flush_c(self) -> None:
        """Flush what C code has written with stdio."""
        self._fflush(None)


class Stream(io.TextIOBase):
    """A text stream whose every write is a piece of output at once."""

    def __init__(self, output: Output, kind: int, fd: int) -> None:
        self._output = output
        self._kind = kind
        self._fd = fd
        self.buffer = Buffer(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has a writable attribute
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # as above
        return "backslashreplace"

    @property
    def name(self) -> str:
        return "<stdout>" if self._fd == 1 else "<stderr>"

    @property
    def mode(self) -> str:
        return "w"

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self.write_bytes(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write raw bytes, in order with text."""
        for start in range(0, len(data), channel.PACKET_BYTES):
            self._output.send(self._kind, 0, data[start : start + channel.PACKET_BYTES])

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]  # text, as in io.TextIOWrapper
        self.write("".join(lines))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Buffer(io.BufferedIOBase):
    """The binary side of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer
        raw = bytes(data)
        self._stream.write_bytes(raw)
        return len(raw)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
