"""Questions of code that runs, put to somebody who takes his time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType

from ._answers import Answers
from ._errors import InstructionNotRunning, TorporError
from ._events import InputRequest
from ._run_stream import RunStream

STOP_SECONDS = 5.0
"""How long an answer on its way is waited for when somebody leaves."""

Answer = Callable[[InputRequest, threading.Event], str | None]
"""Returns what the code is to read, line ends included, or None for the end. Raises `Stopped` when the event is set."""


class Stopped(Exception):
    """No answer is wanted any more."""


class Asking:
    """Waits for an answer in a thread, so that the code is followed meanwhile: it may end, or be answered elsewhere."""

    def __init__(self, stream: RunStream, given: str, answer: Answer, tell: Callable[[str], object]) -> None:
        """`given`: what was handed over with the code. `tell`: of what goes wrong."""
        self._stream = stream
        self._answers = Answers(given)
        self._answer = answer
        self._tell = tell
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_asking(self) -> bool:
        """Whether somebody was asked who has not answered yet."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self, question: InputRequest) -> None:
        """Have a question answered, unless it is."""
        if not self._answers.wants(question, restarted=self._stream._state.restarted):
            return
        self.stop()
        self._stop.clear()
        self._thread = threading.Thread(target=self._ask, args=(question,), name="answer", daemon=True)
        self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """Ask no longer. An answer that was given is sent first, for which `seconds` are waited."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _ask(self, question: InputRequest) -> None:
        try:
            text = self._answer(question, self._stop)
            self._stream._send_stdin(self._answers.piece(text))
        except (Stopped, InstructionNotRunning, RuntimeError):  # it has ended, or we have
            return
        except TorporError as error:
            self._tell(f"torpor: {error.message}")
            with contextlib.suppress(TorporError, RuntimeError):
                self._stream._send_stdin(self._answers.piece(None))

    def __enter__(self) -> Asking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(STOP_SECONDS)
