"""Standard output and standard error, for what a machine says: as it is in a pipe, made safe on a terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TextIO

from . import colours
from .safe_text import SafeText


def write(text: str, stream: TextIO) -> None:
    """Write at once, whatever is in it: what the stream's encoding lacks is replaced."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


@dataclass
class Line:
    """The line that a stream writes on; a terminal has one for both."""

    begun: bool = False


class Sink:
    """One of the two streams."""

    def __init__(self, stream: TextIO, line: Line) -> None:
        self.is_terminal = stream.isatty()
        self.stream = stream
        self._line = line
        self._safe = SafeText(colours=colours.wanted(stream), movements=not colours.is_dumb())

    def foreign(self, text: str) -> None:
        """Write what a machine says."""
        self._write(self._safe.feed(text) if self.is_terminal else text)

    def own(self, text: str) -> None:
        """Write what is ours, or was made safe, whatever is in it."""
        self._write(text)

    def echoed(self) -> None:
        """The terminal itself has shown a key that was pressed, as it does with `^C`."""
        self._line.begun = self.is_terminal

    def entered(self, *, hidden: bool) -> None:
        """A line was typed at the terminal, which has shown it with its end, unless it was hidden."""
        if self.is_terminal and hidden:
            write("\n", self.stream)
        self._line.begun = False

    def end_line(self) -> None:
        """End the colours that are in force; begin a new line, unless one was just begun."""
        if self.is_terminal and (rest := self._safe.finish()):
            write(rest, self.stream)
        if self._line.begun:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            write(text, self.stream)
            self._line.begun = not text.endswith("\n")


def sinks() -> tuple[Sink, Sink]:
    """For standard output and for standard error."""
    line = Line()
    out = Sink(sys.stdout, line)
    return out, Sink(sys.stderr, line if out.is_terminal and sys.stderr.isatty() else Line())
