"""Our standard input, read for code that runs on a machine: a person's lines, or what is piped in."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .._asking import Stopped
from .._errors import TorporError

FIRST_BYTES = 1 << 20
"""So much may be handed over with the code."""
PIECE_BYTES = 64 << 10
SOON_SECONDS = 0.2
"""A pipe that ends within this time is handed over as a whole."""
LOOK_SECONDS = 0.1


class OwnInput:
    """A terminal, of which a line is read whenever the code asks; or something else, of which a piece is."""

    def __init__(self, fd: int) -> None:
        self.is_terminal = os.isatty(fd)
        self._fd = fd
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace" if self.is_terminal else "strict")

    def first(self) -> tuple[str, bool]:
        """What is handed over with the code, and whether more may follow. It does not wait for a pipe's end for long.

        Raises `TorporError` if it is not text.
        """
        if self.is_terminal:
            return "", True
        deadline = time.monotonic() + SOON_SECONDS
        data = bytearray()
        while len(data) < FIRST_BYTES and self._is_readable(max(0.0, deadline - time.monotonic())):
            piece = os.read(self._fd, min(PIECE_BYTES, FIRST_BYTES - len(data)))
            if not piece:
                return self._text(bytes(data), final=True), False
            data += piece
        return self._text(bytes(data)), True

    def line(self, stop: threading.Event, *, hidden: bool) -> str | None:
        """The next line of the terminal, with its end; None at Ctrl-D. `hidden`: it is not shown. Raises `Stopped`."""
        line = ""
        with _without_echo(self._fd) if hidden else _as_it_is():
            while not line.endswith("\n"):
                self._wait(stop)
                piece = os.read(self._fd, PIECE_BYTES)
                if not piece:
                    return f"{line}\n" if line else None
                line += self._text(piece)
        return line

    def piece(self, stop: threading.Event) -> str | None:
        """What has come since; None at the end. Raises `Stopped`, and `TorporError` if it is not text."""
        while True:
            self._wait(stop)
            data = os.read(self._fd, PIECE_BYTES)
            if text := self._text(data, final=not data):
                return text
            if not data:
                return None

    def _wait(self, stop: threading.Event) -> None:
        while not self._is_readable(LOOK_SECONDS):
            if stop.is_set():
                raise Stopped
        if stop.is_set():
            raise Stopped

    def _is_readable(self, seconds: float) -> bool:
        return bool(select.select([self._fd], [], [], seconds)[0])

    def _text(self, data: bytes, *, final: bool = False) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError:
            hint = "Copy it into the machine with `torpor cp`, or pipe it into a command: torpor exec."
            raise TorporError("What is piped in is not UTF-8 text.", hint=hint) from None


def own_input() -> OwnInput | None:
    """Our standard input; None if there is none, or it cannot be waited for."""
    if os.name == "nt":  # `select` takes nothing but sockets there
        return None
    try:
        return None if sys.stdin is None else OwnInput(sys.stdin.fileno())
    except (io.UnsupportedOperation, ValueError):
        return None


@contextmanager
def _without_echo(fd: int) -> Iterator[None]:
    import termios  # noqa: PLC0415 - there is none on Windows, where nobody is asked

    before = termios.tcgetattr(fd)
    mode = [*before]
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)  # what was typed already is for it too
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
