"""Where the user's output goes: `sys.stdout` and `sys.stderr` as packets to the supervisor, in order with displays.

A flood of small writes becomes few packets without a thread: in each `BURST_SECONDS` the first write and some lines are
sent at once, marked BURST; the rest waits, and the supervisor nudges (SIGURG, which nobody else uses) for it.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import io
import os
import select
import stat
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from . import channel
from .connection import Connection

BURST_SECONDS = 0.02
BURST_LINES = 8
CHILDREN_SECONDS = 0.05
"""How long at most what is said waits for what children said before it."""


def system(command: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """`os.system`, but an interrupt ends it: the C library's ignores SIGINT while the command runs."""
    process = subprocess.Popen(command, shell=True)  # noqa: S602  # it is the user's
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return code << 8 if code >= 0 else -code


class Output:
    """The interpreter's way to the supervisor: ordered, never cut by an interrupt, usable from any thread and fork."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._fflush = ctypes.CDLL(None).fflush
        self._main = threading.get_ident()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._kind = channel.STDOUT
        self._pending = bytearray()
        self._window_at = 0.0
        self._window_sent = 0
        self._has_children = False
        """Whether processes were started that may have written into the pipes of fds 1 and 2 since."""
        self.critical = False
        """The main thread is where an interrupt must wait."""
        self.deferred = False
        """An interrupt waits."""
        os.register_at_fork(before=self.flush, after_in_child=self._forked)
        for module, name in ((os, "posix_spawn"), (os, "posix_spawnp"), (subprocess, "_fork_exec")):
            setattr(module, name, self._flushed_before(getattr(module, name)))
        setattr(os, "system", system)  # noqa: B010  # its type says more than anybody uses

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the one that this was made in, by Python code."""
        return self._pid == 0

    def write(self, kind: int, data: bytes) -> None:
        """Add to a stream."""
        for start in range(0, len(data), channel.PACKET_BYTES):
            piece = data[start : start + channel.PACKET_BYTES]
            self._enter()
            try:
                if kind != self._kind or len(self._pending) + len(piece) > channel.PACKET_BYTES:
                    self._seal()
                    self._kind = kind
                self._pending += piece
                now = time.monotonic()
                if now - self._window_at > BURST_SECONDS:
                    self._window_at, self._window_sent = now, 0
                ends_line = piece.endswith(b"\n")
                due = bool(self._queue) or self._window_sent == 0 or (ends_line and self._window_sent < BURST_LINES)
                self._window_sent += due
            finally:
                self._leave()
            if due or self._pid == 0:
                self.flush()

    def send(self, kind: int, seq: int, body: bytes, flags: int = 0) -> None:
        """Send one message, after what was written before it; waits while the supervisor's window is full."""
        self._enter()
        try:
            self._seal()
            self._queue.extend(channel.packets(kind, flags, seq, body))
        finally:
            self._leave()
        self.flush()
        if kind == channel.RESULT:
            self._has_children = False

    def flush(self) -> None:
        """Send what waits."""
        if self._has_children and (self._queue or self._pending):
            self._hear_children()
        while self._queue or self._pending:
            full = False
            self._enter()
            try:
                self._seal()
                while self._queue:
                    self._connection.send(self._queue[0])
                    self._queue.popleft()
            except BlockingIOError:
                full = True
            finally:
                self._leave()
            if full:
                poll = select.poll()
                poll.register(self._connection.fileno(), select.POLLOUT)
                poll.poll(1000)

    def flush_c(self) -> None:
        """Flush what C code has written with stdio."""
        self._fflush(None)

    def nudged(self) -> None:
        """Send what waits if that is possible right now; for a signal handler."""
        if not self.critical and self._lock.acquire(blocking=False):
            try:
                self._seal()
                while self._queue:
                    self._connection.send(self._queue[0])
                    self._queue.popleft()
            except BlockingIOError:
                pass
            finally:
                self._lock.release()

    def _flushed_before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which starts a process whose output must come after what was printed before."""

        @functools.wraps(function)
        def flushed(*args: Any, **kwargs: Any) -> Any:
            self.flush()
            self._has_children = True
            return function(*args, **kwargs)

        return flushed

    def _hear_children(self) -> None:
        """Wait until the supervisor has read what is in the pipes; one that never falls silent is waited for once."""
        deadline = time.monotonic() + CHILDREN_SECONDS
        while _unread_bytes(1) or _unread_bytes(2):
            if time.monotonic() > deadline:
                self._has_children = False
                return
            time.sleep(0.001)

    def _seal(self) -> None:
        if self._pending:
            body = bytes(self._pending)
            self._pending.clear()
            self._queue.extend(channel.packets(self._kind, channel.BURST, 0, body))

    def _enter(self) -> None:
        if threading.get_ident() == self._main:
            self.critical = True
        self._lock.acquire()

    def _leave(self) -> None:
        self._lock.release()
        if threading.get_ident() == self._main:
            self.critical = False
            if self.deferred:
                self.deferred = False
                raise KeyboardInterrupt

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._main = threading.get_ident()
        self._pid = 0  # a child is never nudged: it sends everything at once
        self._queue.clear()
        self._pending.clear()
        self.critical = self.deferred = False


def _unread_bytes(fd: int) -> int:
    """What is in the pipe that an fd writes to; 0 if it is none any more."""
    try:
        unread = fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) if stat.S_ISFIFO(os.fstat(fd).st_mode) else bytes(4)
    except OSError:
        return 0
    return int.from_bytes(unread, sys.byteorder)


class Stream(io.TextIOBase):
    """A text stream of the user's; closing it does nothing."""

    def __init__(self, output: Output, kind: int, fd: int) -> None:
        self._output = output
        self._kind = kind
        self._fd = fd
        self.name = "<stdout>" if fd == 1 else "<stderr>"
        self.mode = "w"
        self.buffer = Buffer(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has a writable attribute
        """Text is written as this."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # as above
        """What becomes of lone surrogates."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The pipe for C code and subprocesses."""
        return self._fd

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str, /) -> int:
        """Write text; lone surrogates are escaped."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write(self._kind, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write raw bytes, in order with text."""
        self._output.write(self._kind, data)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]  # text, as in io.TextIOWrapper
        """Write each."""
        for line in lines:
            self.write(line)

    def reconfigure(self, **_: object) -> None:
        """Accept what programs ask of a real text stream; nothing changes."""

    def flush(self) -> None:
        """Send what waits."""
        self._output.flush()

    def close(self) -> None:
        """Stay open."""


class Buffer(io.BufferedIOBase):
    """The binary side of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.raw = self
        self.name = stream.name
        self.mode = "wb"

    def fileno(self) -> int:
        """The pipe for C code and subprocesses."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer
        """Write raw bytes."""
        raw = bytes(data)
        self._stream.write_bytes(raw)
        return len(raw)

    def flush(self) -> None:
        """Send what waits."""
        self._stream.flush()

    def close(self) -> None:
        """Stay open."""
