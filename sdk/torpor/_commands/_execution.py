"""Code that runs under the user's eyes: its output as it comes, and Ctrl-C for the machine instead of for us."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from .._asking import Answer, Asking
from .._errors import TorporError
from .._events import InputRequest
from .._machine import Machine, RunStream
from .._result import Result
from .._terminal.safe_text import plain
from .._terminal.screen import Screen
from .._terminal.sink import write
from ._console import note
from ._own_input import OwnInput

_SEQ_POLL_SECONDS = 0.05
_PRESSES_TO_LEAVE = 3
_LATE = "TimeoutError"
"""The error of code whose time is over."""


class Interrupts:
    """Ctrl-C while code runs: it is passed on to the machine, which ends the code, by force after three seconds.

    The third leaves the code running, or ending, and ends only the wait.
    """

    def __init__(
        self, machine: Machine, stream: RunStream, tell: Callable[[str], object], echoed: Callable[[], object]
    ) -> None:
        self.pressed = 0
        self._echoed = echoed
        self._machine = machine
        self._stream = stream
        self._tell = tell
        self._over = threading.Event()
        self._senders: list[threading.Thread] = []

    @contextmanager
    def caught(self) -> Iterator[None]:
        """While this is entered, Ctrl-C is meant for the machine."""
        before = signal.signal(signal.SIGINT, self._press)
        try:
            yield
            for sender in self._senders:
                sender.join()
        finally:
            self._over.set()
            signal.signal(signal.SIGINT, before)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self.pressed += 1
        self._echoed()
        if self.pressed >= _PRESSES_TO_LEAVE:
            raise KeyboardInterrupt
        sender = threading.Thread(target=self._interrupt, args=(self.pressed,), name="interrupt", daemon=True)
        self._senders.append(sender)
        sender.start()

    def _interrupt(self, press: int) -> None:
        if press > 1:
            self._tell("[the machine ends it by force within 5 seconds; Ctrl-C once more leaves without waiting]")
        while self._stream.seq is None:
            if self._over.wait(_SEQ_POLL_SECONDS):
                return
        try:
            self._machine.interrupt(self._stream.seq)
        except TorporError as error:
            self._tell(f"torpor: {error.message}")
        except RuntimeError:  # the user has left, and the client is closed
            if not self._over.is_set():
                raise


class _Reconnecting:
    """Says when the server is away, unless it is back at once."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._failures = 0

    def connection(self, there: bool) -> None:
        """It is there, or it was lost."""
        if there and self._failures > 1:
            self._tell("[connected again]")
        self._failures = 0 if there else self._failures + 1
        if self._failures == 2:
            self._tell("[the connection was lost; reconnecting …]")


def _answers_from(source: OwnInput, screen: Screen | None) -> Answer:
    """What somebody types at the terminal, or what is piped in."""

    def typed(question: InputRequest, stop: threading.Event) -> str | None:
        if screen is not None:
            screen.ask(question)
        else:
            write(plain(question.prompt), sys.stderr)
        line = source.line(stop, hidden=question.password)
        if line is not None and screen is not None:
            screen.entered(hidden=question.password)
        elif line is not None and question.password:
            write("\n", sys.stderr)
        return line

    def piped(_question: InputRequest, stop: threading.Event) -> str | None:
        return source.piece(stop)

    return typed if source.is_terminal else piped


def watch(
    machine: Machine,
    stream: RunStream,
    screen: Screen | None = None,
    *,
    source: OwnInput | None = None,
    given: str = "",
) -> tuple[Result, bool]:
    """Follow code to its end, writing what it says if there is a screen; and whether Ctrl-C was pressed.

    What it asks for is read from `source`, behind what it was given. Raises KeyboardInterrupt at the third Ctrl-C; the
    code runs on then.
    """
    tell = note if screen is None else screen.remark
    interrupts = Interrupts(machine, stream, tell, (lambda: None) if screen is None else screen.echoed)
    stream.on_connection(_Reconnecting(tell).connection)
    asking = None if source is None else Asking(stream, given, _answers_from(source, screen), tell)
    unanswered = False
    with interrupts.caught(), stream, asking or nullcontext():
        for event in stream:
            if screen is not None:
                screen.begin(stream.seq)
                screen.show(event)
            if asking is not None and isinstance(event, InputRequest):
                asking.ask(event)
        if asking is not None:
            unanswered = asking.is_asking
            asking.stop()
        result = stream.result()
    if screen is not None:
        screen.begin(result.seq)
        screen.finish(result)
    if unanswered and result.error is not None and result.error.name == _LATE:
        tell("[its time was over before it had an answer; `--timeout 600` gives it more]")
    return result, interrupts.pressed > 0
