"""What an instruction says and what came of it, written for whoever reads: a person at a terminal, or a program."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._events import Display, Event, InputRequest, Notice, Stderr, Stdout
from .._mime import mime_bundle
from .._result import ErrorInfo, Result
from . import colours, frame
from .pictures import Pictures, for_terminal
from .safe_text import plain
from .sink import sinks


class Screen:
    """Writes events to standard output and standard error.

    On a terminal text is made safe, pictures are shown, data frames are tables and tracebacks have colours; in a pipe
    all is as the machine said it, and pictures are written into a folder if there is one.
    """

    def __init__(self, machine_name: str, folder: Path | None = None, *, shown_before: Pictures | None = None) -> None:
        """`folder`: pictures go there. `shown_before`: those of a screen before, which know the terminal already."""
        self._out, self._err = sinks()
        self._shown_notices: set[object] = set()
        self._picture_name = "picture"
        self._named_for_seq = folder is None
        if folder is not None or not self._out.is_terminal:
            self.pictures = Pictures(folder=folder, inline=False)
        else:
            self.pictures = shown_before or for_terminal(machine_name)

    def begin(self, seq: int | None) -> None:
        """The instruction's number has become known: files of pictures are named for it where many meet."""
        if self._named_for_seq and seq is not None:
            self._picture_name = str(seq)

    def show(self, event: Event) -> None:
        """Write an event, if it is something to see."""
        match event:
            case Stdout(text=text):
                self._out.foreign(text)
            case Stderr(text=text):
                self._err.foreign(text)
            case Display():
                self._show_forms(event.data, _text_of(event.data))
            case Notice():
                self._notice(event)
            case _:
                pass

    def finish(self, result: Result) -> None:
        """Write what came of it: the value, or the traceback."""
        for notice in result.notices:
            if notice.id not in self._shown_notices:
                self._notice(notice)
        if result.error is not None:
            self._error(result.error)
        elif result.value is not None:
            self._out.end_line()
            self._show_forms(mime_bundle(result.value, result.data), result.value)
        self.end_line()

    def remark(self, text: str) -> None:
        """A word of ours between what the machine says: on standard error, on a line of its own."""
        self._err.end_line()
        self._err.own(f"{colours.dim(plain(text))}\n")

    def echoed(self) -> None:
        """The terminal itself has shown a key that was pressed."""
        self._err.echoed()

    def ask(self, question: InputRequest) -> None:
        """Write a question that was printed to where nobody looks, since that is no terminal."""
        if not (self._err if question.password else self._out).is_terminal:
            self._err.own(plain(question.prompt))

    def entered(self, *, hidden: bool) -> None:
        """An answer was typed at the terminal, which has shown it with its end, unless it was hidden."""
        self._err.entered(hidden=hidden)

    def end_line(self) -> None:
        """Begin a new line on each terminal, unless one was just begun."""
        for sink in (self._out, self._err):
            if sink.is_terminal:
                sink.end_line()

    def _notice(self, notice: Notice) -> None:
        self._shown_notices.add(notice.id)
        self.remark(f"[{notice.code}] {notice.message}")

    def _error(self, error: ErrorInfo) -> None:
        if error.name == "SystemExit":
            status, text = exit_status(error)
            if text or self._err.is_terminal:
                self.remark(text or f"[the code called sys.exit({status or ''}); the machine lives on]")
            return
        text = "\n".join(line.rstrip("\n") for line in error.traceback) or str(error)
        self._err.end_line()
        if self._err.is_terminal:
            text = plain(text)
            text = colours.traceback(text) if colours.wanted(self._err.stream) else text
        self._err.own(f"{text}\n")

    def _show_forms(self, data: Mapping[str, Any], text: str) -> None:
        shown = self.pictures.show(data, self._picture_name)
        if shown is None and self._out.is_terminal:
            shown = _table_of(data)
        if shown is not None:
            if self._out.is_terminal:
                self._out.end_line()
            self._out.own(shown)
        else:
            self._out.foreign(f"{text}\n")


def exit_status(error: ErrorInfo) -> tuple[int, str]:
    """The status that a process would have after this error, as Python has it, and what it would say."""
    if error.name != "SystemExit":
        return 1, ""
    if error.message in ("", "None"):
        return 0, ""
    number = error.message.removeprefix("-")
    return (int(error.message) & 0xFF, "") if number.isdecimal() and len(number) < 20 else (1, error.message)


def _text_of(data: Mapping[str, Any]) -> str:
    text = data.get("text/plain")
    return text if isinstance(text, str) else f"[{', '.join(data)}]"


def _table_of(data: Mapping[str, Any]) -> str | None:
    html = data.get("text/html")
    found = frame.read(html) if isinstance(html, str) else None
    if found is None:
        return None
    drawn = frame.draw(found, shutil.get_terminal_size().columns, styled=colours.wanted_on_output())
    return None if drawn is None else f"{drawn}\n"
