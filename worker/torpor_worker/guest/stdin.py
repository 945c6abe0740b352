"""What the user's code reads: `sys.stdin`, `input()`, `getpass()`, and fd 0 for whatever else reads.

An instruction's input is a file in memory, its fd 0, so that it is in a snapshot with all the rest. If more may follow
it is a pipe, which Python alone reads: a child would wait there, and nobody would know.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

from . import channel
from .connection import is_open, moved
from .streams import Output

REQUEST = "application/vnd.torpor.input-request+json"
"""The type of what is shown when code waits for input that is yet to be sent."""
NOBODY = (
    "input() got no answer: nobody is at this machine's keyboard. Give its lines with the code, as `stdin`, or put the "
    "values into the code."
)
NO_MORE = "input() got no answer: all of `stdin` has been read."


class _Source(io.RawIOBase):
    """What the instruction may read."""

    def __init__(self, owner: Stdin) -> None:
        self._owner = owner
        self.name = "<stdin>"
        self.mode = "rb"

    def readable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """What C code and children read."""
        return 0

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes; says so first if it has to wait for them."""
        self._owner.about_to_read()
        size = os.readv(self._owner.fd, [buffer])
        self._owner.read_bytes += size
        return size


class _Text(io.TextIOWrapper):
    """The user's `sys.stdin`; closing it does nothing."""

    def close(self) -> None:
        """Stay open."""


class Stdin:
    """The interpreter's standard input, which begins anew with each instruction."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._given: tuple[bytes, int | None] | None = None
        """For the next instruction: what it reads first, and a pipe with what follows, if anything may."""
        self._is_used = False
        """Something was given to the instruction before."""
        self.fd = 0
        """From where Python reads."""
        self._inode = 0
        """Of the pipe, if it reads from one."""
        self._problem: OSError | None = None
        """Why the instruction has not what it was given."""
        self.read_bytes = 0
        """How much the instruction has read, but for what was read by children that Python code has forked."""
        self._question: tuple[str, bool] = ("", False)
        """What is asked just now, and whether the answer is a secret."""
        self._real_input = builtins.input
        self.stream = self._new()
        sys.stdin = sys.__stdin__ = self.stream  # type: ignore[misc]  # it is what it is from now on
        builtins.input = self._ask
        with contextlib.suppress(ImportError):  # a file system without it has no code that calls it
            import getpass  # noqa: PLC0415

            getpass.getpass = self._ask_secretly

    def _new(self) -> _Text:
        # As Python's own in this locale: what is no UTF-8 stays what it is.
        return _Text(io.BufferedReader(_Source(self)), encoding="utf-8", errors="surrogateescape")

    def give(self, data: bytes, pipe: int | None) -> None:
        """What the next instruction is to read."""
        if self._given is not None and self._given[1] is not None:
            os.close(self._given[1])
        self._given = data, pipe

    def begin(self) -> list[str]:
        """Let an instruction read what it was given, and nothing else; a sentence if something had to be repaired."""
        given, self._given = self._given, None
        repaired = self._repair()
        if self._is_used:
            self._is_used = False
            self._problem = None
            self._close_pipe()
            with contextlib.suppress(OSError):  # no descriptor is left: what there was is read to its end
                _become(os.open(os.devnull, os.O_RDONLY))
            with contextlib.suppress(OSError, ValueError):
                self.stream.read()
            self.read_bytes = 0
        if given is not None:
            data, pipe = given
            self._is_used = True
            try:
                if pipe is None:
                    _become(_file(data))
                else:
                    self._read_from(pipe)
            except OSError as problem:
                self._problem = problem
        return repaired

    def _read_from(self, pipe: int) -> None:
        self.fd = moved(pipe)
        os.close(pipe)
        self._inode = os.fstat(self.fd).st_ino

    def _close_pipe(self) -> None:
        if self.fd != 0 and is_open(self.fd, self._inode):
            os.close(self.fd)
        self.fd = 0

    def _repair(self) -> list[str]:
        if _is_closed(self.stream):
            self.stream = self._new()
        if sys.stdin is self.stream or not _is_closed(sys.stdin):
            return []
        sys.stdin = sys.__stdin__ = self.stream  # type: ignore[misc]  # as above
        return ["sys.stdin could not be read; it is the machine's own again."]

    def about_to_read(self) -> None:
        """Show that an answer is waited for, if that is so."""
        if self._problem is not None:
            raise self._problem
        if self.fd == 0:
            return
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if poll.poll(0):
            return
        prompt, secret = self._question
        question = {"prompt": prompt, "password": secret, "read_bytes": self.read_bytes}
        bundle = {"data": {REQUEST: question}, "metadata": {}}
        self._output.send(channel.DISPLAY, 0, json.dumps(bundle).encode())

    def _ask(self, prompt: object = "", /) -> str:
        """Read a line, without its end; what `input` is. Raises `EOFError` when there is none."""
        if sys.stdin is not self.stream:
            return self._real_input(prompt)
        text = str(prompt)
        if text:
            print(text, end="", flush=True)  # noqa: T201  # as the built-in function does
        return self._line(text, secret=False)

    def _ask_secretly(self, prompt: str = "Password: ", stream: Any = None, *, echo_char: str | None = None) -> str:
        """Read a line for which nobody looks over a shoulder; what `getpass.getpass` is."""
        print(prompt, end="", file=stream or sys.stderr, flush=True)  # as the library's does
        return self._line(prompt, secret=True)

    def _line(self, prompt: str, *, secret: bool) -> str:
        with self._asking(prompt, secret=secret):
            line = sys.stdin.readline()
        if not line:
            raise EOFError(NO_MORE if self._is_used else NOBODY)
        return line.removesuffix("\n")

    @contextlib.contextmanager
    def _asking(self, prompt: str, *, secret: bool) -> Iterator[None]:
        before, self._question = self._question, (prompt[:1000], secret)
        try:
            yield
        finally:
            self._question = before


def _file(data: bytes) -> int:
    fd = os.memfd_create("stdin")
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _become(fd: int) -> None:
    """Put it in the place of fd 0."""
    if fd != 0:
        os.dup2(fd, 0)
        os.close(fd)


def _is_closed(stream: Any) -> bool:
    try:
        closed = stream.closed or getattr(getattr(stream, "buffer", None), "closed", False)
        return bool(closed) or not callable(stream.readline)
    except Exception:  # it is detached, or none at all
        return True
