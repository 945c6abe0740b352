"""What a language model reads of a result: all that matters of it, within a budget."""

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._events import Display, Event, Notice, Stderr, Stdout, png_of
from ._picture import reason_against
from ._terminal.safe_text import SafeText

if TYPE_CHECKING:
    from ._result import ErrorInfo, Result

CHARACTERS_A_TOKEN = 4
"""About so many, if they are ASCII; others count as the bytes that they have in UTF-8."""
DEFAULT_TOKENS = 4000
TRACEBACK_LINES = 20
_HEAD = 0.6
"""Of what fits of a long output: its beginning. The rest is its end, where results and errors are."""
_NOTICES = 0.25
_NO_NEWS = frozenset({"output_restarted"})

_TAGS = re.compile(r"<(?:script|style)\b.*?</(?:script|style)\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_SAYS_NOTHING = re.compile(r"<[^\n]{0,200}\bobject\b[^\n]{0,200}>")
_KINDS = (("text/markdown", "markdown"), ("text/latex", "latex"), ("text/html", "html"), ("application/json", "json"))
_OTHER_PICTURES = {"image/jpeg": "JPEG", "jpeg": "JPEG", "image/svg+xml": "SVG", "svg": "SVG", "image/gif": "GIF"}


def text_of(result: Result, *, limit_tokens: int = DEFAULT_TOKENS, rest: Callable[[int], str] | None = None) -> str:
    """Output, value or error, and notices, as one text of about so many tokens at most.

    `rest` says of a position in `whole_text_of(result)` how what is left out from there on can be read.
    """
    budget = max(limit_tokens, 50) * CHARACTERS_A_TOKEN
    kept = f"all of it is kept as the output of instruction {result.seq} of machine {result.machine_name}"
    body = cut(whole_text_of(result), budget, rest or kept)
    notices = cut(notices_text(result.notices), int(budget * _NOTICES), "notices")
    return "\n".join(part for part in (body, notices) if part) or "(no output)"


def notices_text(notices: Iterable[Notice]) -> str:
    """A line for each notice that is news to a model."""
    return "".join(f"[notice] {notice.message}\n" for notice in notices if notice.code not in _NO_NEWS)


def whole_text_of(result: Result) -> str:
    """Everything that an instruction showed, its value, or its error, as one text."""
    parts = [_shown(result.events)]
    if result.value is not None:
        parts.append(_bundle_text(result.data, result.value))
    if result.error is not None:
        parts.append(on_a_screen(error_text(result.error)))
    return "\n".join(part.rstrip("\n") for part in parts if part)


def whole_text_of_command(stdout: str, stderr: str, error: str | None) -> str:
    """Everything that a command printed, and what went wrong, as one text."""
    parts = [on_a_screen(stdout)]
    if stderr.strip():
        parts.append(f"[stderr] {on_a_screen(stderr)}")
    if error is not None:
        parts.append(f"[{error}]")
    return "\n".join(text for part in parts if (text := part.rstrip("\n")))


def error_text(error: ErrorInfo) -> str:
    """The user's own frames and the error, at most some lines of it."""
    lines = [line for line in "\n".join(error.traceback).splitlines() if line.strip()] or [str(error)]
    if len(lines) > TRACEBACK_LINES:
        half = TRACEBACK_LINES // 2
        lines = [*lines[:half], f"  [{len(lines) - 2 * half} more lines]", *lines[-half:]]
    if error.steps:
        # The traceback ends in what ended it, such as KeyboardInterrupt, and does not say why.
        if not lines[-1].startswith(error.name):
            lines.append(str(error))
        lines.append(f"[it was ended by: {', '.join(error.steps)}]")
    return "\n".join(lines)


def cut(text: str, limit_bytes: int, rest: str | Callable[[int], str]) -> str:
    """`text`, or its beginning and its end with a note between them of how much is missing, and where that is.

    Beginning and end have `limit_bytes` of UTF-8 together, or somewhat less, since they are cut between lines if some
    are near. `rest` is where it is; or is called with the position of the first character that is missing, and says it.
    """
    text = text.rstrip("\n")
    if len(text) <= limit_bytes and len(_encoded(text)) <= limit_bytes:
        return text
    head_bytes = int(limit_bytes * _HEAD)
    tail_bytes = limit_bytes - head_bytes
    # No more characters than bytes can fit: a text of megabytes is not encoded whole.
    head = _encoded(text[:head_bytes])[:head_bytes].decode(errors="ignore")
    tail = _encoded(text[-tail_bytes:])[-tail_bytes:].decode(errors="ignore")
    position, end = len(head), len(text) - len(tail)
    if (line := head.rfind("\n") + 1) >= len(head) * 3 // 4:
        position = line
    if 0 < (line := tail.find("\n") + 1) <= len(tail) // 4:
        end += line
    head, tail = text[:position].removesuffix("\n"), text[end:]
    where = rest if isinstance(rest, str) else rest(position)
    return f"{head}\n[… {end - position} characters left out; {where} …]\n{tail}"


def beginning(text: str, limit_bytes: int) -> str:
    """As much of a text as fits, up to the end of a line if one is near."""
    if len(text) <= limit_bytes and len(_encoded(text)) <= limit_bytes:
        return text
    fits = _encoded(text[:limit_bytes])[:limit_bytes].decode(errors="ignore")
    line = fits.rfind("\n") + 1
    return fits[:line] if line >= len(fits) // 2 else fits


def pictures_of(result: Result) -> tuple[bytes, ...]:
    """Every figure that was shown, and the value's, as PNG files that models' services take; each of them once."""
    pictures = [display.png for display in result.displays]
    pictures.append(png_of(result.data))
    good = (picture for picture in pictures if picture is not None and reason_against(picture) is None)
    return tuple(dict.fromkeys(good))


def on_a_screen(text: str) -> str:
    """Text without colours; of a line that was written over, as a progress bar is, what was on it last."""
    text = SafeText(colours=False, movements=False).feed(text).replace("\b", "").replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(next((part for part in reversed(line.split("\r")) if part), "") for line in text.split("\n"))
    return text


def _shown(events: Sequence[Event]) -> str:
    text: list[str] = []
    for kind, run in itertools.groupby(events, type):
        if kind is Display:
            text += [_bundle_text(event.data, None) + "\n" for event in run if isinstance(event, Display)]
        elif kind in (Stdout, Stderr):
            said = "".join(event.text for event in run if isinstance(event, Stdout | Stderr))
            text.append(("[stderr] " if kind is Stderr else "") + on_a_screen(said))
    return "".join(text)


def _bundle_text(bundle: Mapping[str, Any], value: str | None) -> str:
    """A display as text, or a value (its `repr`), whose other forms the bundle has."""
    picture = png_of(bundle)
    if picture is not None:
        reason = reason_against(picture)
        place = "[a figure]" if reason is None else f"[a figure that cannot be shown: {reason}]"
        return place if value is None else f"{on_a_screen(value)}\n{place}"
    plain = bundle.get("text/plain") if value is None else value
    if isinstance(plain, str) and not _SAYS_NOTHING.fullmatch(plain):
        return on_a_screen(plain)
    for kind, short in _KINDS:
        content = bundle.get(kind, bundle.get(short))
        if isinstance(content, str) and kind == "text/html":
            return on_a_screen(html.unescape(_TAGS.sub("", content)).strip())
        if content is not None:
            return on_a_screen(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    for kind, name in _OTHER_PICTURES.items():
        if kind in bundle:
            return f"[a picture that cannot be shown: it is {name}, and only PNG can be]"
    return plain if isinstance(plain, str) else f"[{', '.join(bundle)}]"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
