"""Whether there are colours, and tracebacks in them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO


def wanted(stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """Whether a stream is a terminal with colours, and its user has not asked for none (https://no-color.org)."""
    environment = os.environ if environment is None else environment
    return stream.isatty() and not environment.get("NO_COLOR") and not is_dumb(environment)


def wanted_on_output() -> bool:
    """Whether standard output is such a terminal."""
    return wanted(sys.stdout)


def is_dumb(environment: Mapping[str, str] | None = None) -> bool:
    """Whether the terminal knows nothing but text."""
    environment = os.environ if environment is None else environment
    return environment.get("TERM", "dumb") in ("dumb", "unknown", "")


def traceback(text: str) -> str:
    """A traceback with colours."""
    from pygments import highlight  # noqa: PLC0415 - slow to import, and most code has no error
    from pygments.formatters import TerminalFormatter  # noqa: PLC0415
    from pygments.lexers import PythonTracebackLexer  # noqa: PLC0415

    return highlight(text, PythonTracebackLexer(stripnl=False), TerminalFormatter()).removesuffix("\n")


def dim(text: str) -> str:
    """A remark of ours on standard error, paler than what the machine says if there are colours."""
    return f"\x1b[2m{text}\x1b[0m" if wanted(sys.stderr) else text
