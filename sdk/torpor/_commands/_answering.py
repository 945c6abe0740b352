"""Answers for code that asks while it runs, from our standard input."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import TracebackType

from .._answers import Answers
from .._errors import InstructionNotRunning, TorporError
from .._events import InputRequest
from .._run_stream import RunStream
from .._terminal.safe_text import plain
from .._terminal.screen import Screen
from .._terminal.sink import write
from ._console import note
from ._own_input import OwnInput, Stopped

STOP_SECONDS = 5.0
"""How long an answer on its way is waited for when somebody leaves."""


class Answering:
    """Waits for an answer in a thread, so that the code is followed meanwhile: it may end, or be answered elsewhere."""

    def __init__(self, stream: RunStream, source: OwnInput, given: str, screen: Screen | None) -> None:
        """`given`: what was handed over with the code."""
        self._stream = stream
        self._source = source
        self._answers = Answers(given)
        self._screen = screen
        self._stop = threading.Event()
        self._asking: threading.Thread | None = None

    @property
    def is_asking(self) -> bool:
        """Whether somebody was asked who has not answered yet."""
        return self._asking is not None and self._asking.is_alive()

    def ask(self, question: InputRequest) -> None:
        """Have a question answered, unless it is."""
        if not self._answers.wants(question, restarted=self._stream._state.restarted):
            return
        self.stop()
        self._stop.clear()
        self._asking = threading.Thread(target=self._answer, args=(question,), name="answer", daemon=True)
        self._asking.start()

    def stop(self, seconds: float | None = None) -> None:
        """Ask no longer. An answer that was given is sent first, which `seconds` is waited for."""
        self._stop.set()
        if self._asking is not None:
            self._asking.join(seconds)

    def _answer(self, question: InputRequest) -> None:
        try:
            if self._source.is_terminal:
                self._show(question)
                line = self._source.line(self._stop, hidden=question.password)
                if line is not None:
                    self._entered(hidden=question.password)
                body = self._answers.body(line)
            else:
                body = self._answers.piece(self._source.piece(self._stop))
            self._stream._send_stdin(body)
        except (Stopped, InstructionNotRunning, RuntimeError):  # it has ended, or we are about to
            return
        except TorporError as error:
            self._tell(f"torpor: {error.message}")
            with contextlib.suppress(TorporError, RuntimeError):
                self._stream._send_stdin(self._answers.body(None))

    def _show(self, question: InputRequest) -> None:
        if self._screen is not None:
            self._screen.ask(question)
        else:
            write(plain(question.prompt), sys.stderr)

    def _entered(self, *, hidden: bool) -> None:
        if self._screen is not None:
            self._screen.entered(hidden=hidden)
        elif hidden:
            write("\n", sys.stderr)

    def _tell(self, text: str) -> None:
        if self._screen is not None:
            self._screen.remark(text)
        else:
            note(text)

    def __enter__(self) -> Answering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(STOP_SECONDS)
