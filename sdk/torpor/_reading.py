"""What a language model reads of a result: all that matters of it, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._events import Display, Event, Stderr, Stdout, png_of

if TYPE_CHECKING:
    from ._result import ErrorInfo, Result

CHARACTERS_A_TOKEN = 4
DEFAULT_TOKENS = 4000
TRACEBACK_LINES = 20
_HEAD = 0.6
"""Of what fits of a long output: its beginning. The rest is its end, where results and errors are."""
_NO_NEWS = frozenset({"output_restarted"})


def text_of(result: Result, *, limit_tokens: int = DEFAULT_TOKENS) -> str:
    """Output, value or error, and notices, as one text of about so many tokens at most."""
    budget = max(limit_tokens, 50) * CHARACTERS_A_TOKEN
    parts = [cut(_shown(result.events), budget // 2, _rest(result))]
    if result.value is not None:
        parts.append(cut(result.value, budget // 2, "ask for less of it"))
    if result.error is not None:
        parts.append(cut(error_text(result.error), budget // 2, "the error's middle"))
    parts += [f"[notice] {notice.message}" for notice in result.notices if notice.code not in _NO_NEWS]
    return "\n".join(part for part in parts if part) or "(no output)"


def error_text(error: ErrorInfo) -> str:
    """The user's own frames and the error, at most some lines of it."""
    lines = [line for line in "\n".join(error.traceback).splitlines() if line.strip()] or [str(error)]
    if len(lines) > TRACEBACK_LINES:
        half = TRACEBACK_LINES // 2
        lines = [*lines[:half], f"  [{len(lines) - 2 * half} more lines]", *lines[-half:]]
    if error.steps:
        lines.append(f"[it was ended by: {', '.join(error.steps)}]")
    return "\n".join(lines)


def cut(text: str, characters: int, rest: str) -> str:
    """`text`, or its beginning and its end with a note between them of how much is missing, and where that is."""
    text = text.rstrip("\n")
    if len(text) <= characters:
        return text
    head = int(characters * _HEAD)
    tail = characters - head
    return f"{text[:head]}\n[… {len(text) - head - tail} characters left out; {rest} …]\n{text[len(text) - tail :]}"


def pictures_of(result: Result) -> tuple[bytes, ...]:
    """Every figure that was shown, and the value's, as PNG files."""
    shown = [picture for display in result.displays if (picture := display.png) is not None]
    value = png_of(result.data)
    return (*shown, *([] if value is None else [value]))


def _shown(events: Sequence[Event]) -> str:
    text: list[str] = []
    on_stderr = False
    for event in events:
        if isinstance(event, Stdout | Stderr):
            if isinstance(event, Stderr) and not on_stderr:
                text.append("[stderr] ")
            on_stderr = isinstance(event, Stderr) and not event.text.endswith("\n")
            text.append(event.text)
        elif isinstance(event, Display):
            on_stderr = False
            text.append(_display_text(event) + "\n")
    return "".join(text)


def _display_text(display: Display) -> str:
    if display.png is not None:
        return "[a figure]"
    plain = display.data.get("text/plain") or display.data.get("text/markdown")
    return plain if isinstance(plain, str) else f"[{', '.join(display.data)}]"


def _rest(result: Result) -> str:
    return f"all of it is kept as the output of instruction {result.seq} of machine {result.machine_name}"
