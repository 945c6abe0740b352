"""A program on a pseudo-terminal, talked to as a person does: wait for what is shown, then type."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_SECONDS = 60
COMMAND = str(Path(sys.executable).with_name("torpor"))
TAKE_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Without a controlling terminal, Ctrl-C would be a character and no signal."""
BEGINS_PROMPT = b"\x1b[?2004h"
"""What is pasted is to be marked as such: written at each prompt, and only there."""
CONTROL = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[P_][^\x1b]*\x1b\\|[=>])")


class Terminal:
    """The terminal's side."""

    def __init__(
        self, process: subprocess.Popen[bytes], screen: int, answers: Mapping[bytes, bytes], *, dumb: bool
    ) -> None:
        self.process = process
        self.raw = b""
        """All that was shown, as it came."""
        self._screen = screen
        self._answers = dict(answers)
        self._seen = 0
        self._prompts = 0
        self._dumb = dumb

    @property
    def text(self) -> str:
        """All that was shown, without the terminal's control sequences."""
        return CONTROL.sub("", self.raw.decode(errors="replace"))

    @property
    def is_echoing(self) -> bool:
        """Whether what is typed is shown by the terminal itself."""
        return bool(termios.tcgetattr(self._screen)[3] & termios.ECHO)

    def wait_for(self, text: str) -> None:
        """Read until this is shown, behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.text.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"No {text!r} in {self.text[self._seen :]!r}"
            assert self.process.poll() is None or self._read(), f"It ended without {text!r}: {self.text!r}"
            self._read()
        self._seen = found + len(text)

    def type(self, text: str) -> None:
        """Type, as if on a keyboard."""
        os.write(self._screen, text.encode())

    def say(self, text: str, answer: str = "") -> None:
        """Type at the prompt, and wait for what is answered and for the prompt behind that."""
        self.type(text)
        self.wait_for(answer)
        self.wait_for_prompt()

    def wait_for_prompt(self) -> None:
        """Read until there is a new prompt, and what is typed at it is read key by key."""
        if self._dumb:
            self.wait_for(">>> ")
            return
        self.wait_until(lambda: self.raw.count(BEGINS_PROMPT) > self._prompts)
        self._prompts = self.raw.count(BEGINS_PROMPT)
        self.wait_for(">>>")
        self.wait_until(lambda: not termios.tcgetattr(self._screen)[3] & termios.ICANON)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Read until something is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, self.text
            self._read()

    def shows_for(self, seconds: float) -> str:
        """What is shown in so many seconds."""
        before = len(self.text)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read()
        return self.text[before:]

    def resize(self, columns: int, rows: int = 24) -> None:
        """Another size, as when a window is pulled."""
        set_size(self._screen, columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def wait_for_the_end(self) -> int:
        """Read until the program has ended; its exit status."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def _read(self) -> bool:
        if not select.select([self._screen], [], [], 0.1)[0]:
            return False
        with suppress(OSError):  # the program has closed its side
            piece = os.read(self._screen, 65536)
            self.raw += piece
            for question in [question for question in self._answers if question in self.raw]:
                os.write(self._screen, self._answers.pop(question))
            return bool(piece)
        return False


def set_size(screen: int, columns: int, rows: int) -> None:
    """Set a terminal's size; a character has 10 times 20 pixels."""
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, columns * 10, rows * 20))


@contextmanager
def terminal(
    environment: Mapping[str, str],
    *arguments: str,
    columns: int = 80,
    answers: Mapping[bytes, bytes] | None = None,
) -> Iterator[Terminal]:
    """`torpor` on a terminal of its own; killed at the end if it still runs.

    `answers`: what the terminal says, once, when it is shown a question.
    """
    screen, side = pty.openpty()
    set_size(screen, columns, 24)
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_THE_TERMINAL, COMMAND, *arguments],
        env=dict(environment),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    try:
        yield Terminal(process, screen, answers or {}, dumb=environment["TERM"] == "dumb")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(screen)
