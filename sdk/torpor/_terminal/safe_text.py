"""Text of strangers, made safe for a terminal: a terminal obeys what it is shown. Pure.

A sequence can set the clipboard (OSC 52), the title, the keyboard's meaning; or make the terminal answer as if its user
had typed (DECRQSS, title reports). What passes here is text and what progress bars and colours need.
"""

from __future__ import annotations

import re
from typing import Literal

LONGEST_SEQUENCE = 64
"""Characters of parameters; a longer sequence is no sequence."""
LONGEST_STRING = 4096
"""Characters that an unfinished string (OSC, DCS, …) may swallow before what follows is text again."""

_SPECIAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STRING_END = re.compile(r"[\n\x07\x18\x1a\x1b\x9c]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_WITHIN_LINE = re.compile(r"\x1b\[(?:[0-2]?K|[0-9]{0,4}[CD])")
_NO_COLOURS = frozenset({"\x1b[m", "\x1b[0m"})

_State = Literal["text", "escape", "intermediate", "sequence", "string"]


class SafeText:
    """Passes text through in whatever pieces it comes, without what could do harm.

    There pass printable text, newline, tab, carriage return, backspace; colours (SGR); erase line (EL); and the cursor
    left and right, which stay within the line. `colours` and `movements` False leave out even those.
    """

    def __init__(self, *, colours: bool = True, movements: bool = True) -> None:
        self.coloured = False
        """Whether a colour that passed is still in force."""
        self._colours = colours
        self._movements = movements
        self._state: _State = "text"
        self._sequence = ""
        self._swallowed = 0

    def feed(self, text: str) -> str:
        """What of this piece is safe. An unfinished sequence waits for the next piece."""
        if self._state == "text" and _SPECIAL.search(text) is None:
            return text
        passed: list[str] = []
        at = 0
        while at < len(text):
            match self._state:
                case "text":
                    at = self._text(text, at, passed)
                case "string":
                    at = self._string(text, at)
                case _:
                    at = self._in_sequence(text, at, passed)
        return "".join(passed)

    def finish(self) -> str:
        """Forget what is unfinished; what ends the colours that are in force."""
        self._state = "text"
        if not self.coloured:
            return ""
        self.coloured = False
        return "\x1b[0m"

    def _text(self, text: str, at: int, passed: list[str]) -> int:
        special = _SPECIAL.search(text, at)
        if special is None:
            passed.append(text[at:])
            return len(text)
        passed.append(text[at : special.start()])
        match special.group():
            case "\x1b":
                self._state = "escape"
            case "\x9b":
                self._begin("sequence")
            case "\x90" | "\x98" | "\x9d" | "\x9e" | "\x9f":
                self._begin("string")
            case "\r" | "\b" as movement:
                passed.append(movement)
        return special.end()

    def _begin(self, state: _State) -> None:
        self._state = state
        self._sequence = "\x1b["
        self._swallowed = 0

    def _string(self, text: str, at: int) -> int:
        end = _STRING_END.search(text, at, at + LONGEST_STRING - self._swallowed)
        if end is None:
            read = min(len(text) - at, LONGEST_STRING - self._swallowed)
            self._swallowed += read
            if self._swallowed >= LONGEST_STRING:
                self._state = "text"
            return at + read
        if end.group() == "\x1b":
            self._state = "escape"  # ESC \ ends a string; any other sequence does, too
            return end.end()
        self._state = "text"
        return end.start() if end.group() == "\n" else end.end()

    def _in_sequence(self, text: str, at: int, passed: list[str]) -> int:
        character = text[at]
        if not " " <= character <= "~":
            self._state = "text"  # it is none; the character is looked at again as text
            return at
        if self._state == "sequence":
            self._sequence += character
            if character >= "@":
                self._state = "text"
                self._pass(passed)
            elif len(self._sequence) > LONGEST_SEQUENCE:
                self._state = "text"
        elif character <= "/":
            self._state = "intermediate"
        elif self._state == "escape" and character == "[":
            self._begin("sequence")
        elif self._state == "escape" and character in "]PX^_k":
            self._begin("string")
        else:
            self._state = "text"
        return at + 1

    def _pass(self, passed: list[str]) -> None:
        if self._colours and _COLOUR.fullmatch(self._sequence):
            passed.append(self._sequence)
            self.coloured = self._sequence not in _NO_COLOURS
        elif self._movements and _WITHIN_LINE.fullmatch(self._sequence):
            passed.append(self._sequence)


def plain(text: str) -> str:
    """A whole text without any control characters but newlines and tabs."""
    if _SPECIAL.search(text) is None:
        return text
    return SafeText(colours=False, movements=False).feed(text).replace("\r", "").replace("\b", "")


def one_line(text: str) -> str:
    """A text as one line of printable characters: each other one is a space."""
    return "".join(character if character.isprintable() else " " for character in text)
