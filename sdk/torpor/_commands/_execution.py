"""Code that runs under the user's eyes: its output as it comes, and Ctrl-C for the machine instead of for us."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .._errors import TorporError
from .._events import Display, Event, Notice, Stderr, Stdout
from .._machine import Machine, RunStream
from .._result import Result
from ._console import note, write

_SEQ_POLL_SECONDS = 0.05


class Interrupts:
    """Ctrl-C while code runs: the first ends the code, the second leaves it running and ends the wait."""

    def __init__(self, machine: Machine, stream: RunStream) -> None:
        self.pressed = 0
        self._machine = machine
        self._stream = stream
        self._over = threading.Event()
        self._sender: threading.Thread | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """While this is entered, Ctrl-C is meant for the machine."""
        before = signal.signal(signal.SIGINT, self._press)
        try:
            yield
            if self._sender is not None:
                self._sender.join()
        finally:
            self._over.set()
            signal.signal(signal.SIGINT, before)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self.pressed += 1
        if self.pressed > 1:
            raise KeyboardInterrupt
        self._sender = threading.Thread(target=self._interrupt, name="interrupt", daemon=True)
        self._sender.start()

    def _interrupt(self) -> None:
        while self._stream.seq is None:
            if self._over.wait(_SEQ_POLL_SECONDS):
                return
        try:
            self._machine.interrupt(self._stream.seq)
        except TorporError as error:
            note(f"\ntorpor: {error.message}")
        except RuntimeError:  # the user left at a second Ctrl-C, and the client is closed
            if not self._over.is_set():
                raise


class Screen:
    """Writes events to standard output and standard error, and pictures into a folder if there is one."""

    def __init__(self, pictures: Path | None = None) -> None:
        self._pictures = pictures
        self._saved = 0
        self._column_0 = True

    def show(self, event: Event) -> None:
        """Write an event, if it is something to see."""
        match event:
            case Stdout(text=text):
                self._write(text)
            case Stderr(text=text):
                write(text, sys.stderr)
            case Display():
                self._write(self._text_of(event) + "\n")
            case Notice(code=code, message=message):
                note(f"[{code}] {message}")
            case _:
                pass

    def finish(self, result: Result) -> None:
        """Write what came of it: the value, or the traceback."""
        shown = {notice.id for notice in result.events if isinstance(notice, Notice)}
        for notice in result.notices:
            if notice.id not in shown:
                note(f"[{notice.code}] {notice.message}")
        if result.error is not None:
            lines = [line.rstrip("\n") for line in result.error.traceback] or [str(result.error)]
            note("\n".join(lines))
        elif result.value is not None:
            self.end_line()
            self._write(f"{result.value}\n")

    def end_line(self) -> None:
        """Begin a new line, unless one was just begun."""
        if not self._column_0:
            self._write("\n")

    def _write(self, text: str) -> None:
        write(text, sys.stdout)
        self._column_0 = text.endswith("\n") if text else self._column_0

    def _text_of(self, display: Display) -> str:
        picture = display.png
        if picture is not None and self._pictures is not None:
            self._saved += 1
            path = self._pictures / f"picture-{self._saved}.png"
            self._pictures.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
            return f"[{path}]"
        text = display.data.get("text/plain")
        return text if isinstance(text, str) else f"[{', '.join(display.data)}]"


def watch(machine: Machine, stream: RunStream, screen: Screen | None = None) -> tuple[Result, bool]:
    """Follow code to its end, writing what it says if there is a screen; and whether Ctrl-C was pressed.

    Raises KeyboardInterrupt at the second Ctrl-C; the code runs on then.
    """
    interrupts = Interrupts(machine, stream)
    with interrupts.caught(), stream:
        for event in stream:
            if screen is not None:
                screen.show(event)
        result = stream.result()
    if screen is not None:
        screen.finish(result)
    return result, interrupts.pressed > 0
