"""What a shell and its programs write, on a terminal that is theirs: all that draws, and nothing that acts. Pure.

A full screen needs movements, modes and scrolling. What sets a clipboard or a title, or makes the terminal answer as if
its user had typed, no program needs so much that whatever runs on a machine should have it.
"""

from __future__ import annotations

import re

from .safe_text import SafeText

RESET = "\x1b[!p\x1b[?1000;1002;1003;1006;1049;2004l\x1b[?25h\x1b[0m"
"""What a terminal is told when it is left: whatever was set in it is as it was."""
_DRAWS = re.compile(r"\x1b\[(?:\?[0-9;]*[hlJKrs]|[0-9;:]*(?:[@-MPSTXZ`abd-hlmrsu]| q))")
"""Movements, erasing, inserting, scrolling, modes, colours, the cursor's shape; no question (c, n, t, x, $p, >q)."""
_PLAIN_ESCAPES = "78=>DEHM"
_CHARSETS = "()*+"
_KNOWN_CHARSETS = "AB012"


class ShellText(SafeText):
    """As `SafeText`, for a terminal in which programs draw as they like."""

    def __init__(self) -> None:
        super().__init__()
        self._charset = ""

    def _in_sequence(self, text: str, at: int, passed: list[str]) -> int:
        character = text[at]
        if self._charset:
            if character in _KNOWN_CHARSETS:
                passed.append(f"\x1b{self._charset}{character}")
            self._charset = ""
            self._state = "text"
            return at + 1 if " " <= character <= "~" else at
        if self._state == "escape" and character in _CHARSETS:
            self._charset = character
            return at + 1
        if self._state == "escape" and character in _PLAIN_ESCAPES:
            passed.append(f"\x1b{character}")
            self._state = "text"
            return at + 1
        return super()._in_sequence(text, at, passed)

    def _pass(self, passed: list[str]) -> None:
        if _DRAWS.fullmatch(self._sequence):
            passed.append(self._sequence)
