"""What an instruction answers: its value as text and MIME bundle, or its error."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any

from . import channel
from .cell import is_internal

VALUE_CHARACTERS = 1 << 20
LINE_CHARACTERS = 20_000
TRACEBACK_LINES = 400
BUNDLE_BYTES = 4 << 20
PLAIN = frozenset({int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, type})


def cut(text: str, characters: int) -> str:
    """`text` without lone surrogates, or its beginning with a marker that says how much is missing."""
    if len(text) > characters:
        text = f"{text[:characters]}… [{len(text) - characters} more characters]"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def of_value(shell: Any, value: Any) -> dict[str, Any]:
    """The result of an expression; runs the user's `__repr__` and friends, and raises what they raise."""
    if value is None:
        return {"value": None}
    shell.user_ns["_"] = value
    text = repr(value)
    fields: dict[str, Any] = {"value": cut(text, VALUE_CHARACTERS)}
    kind = type(value)
    if kind in PLAIN and not shell.has_printer_for(kind):
        return fields
    data, _ = shell.display_formatter.format(value, exclude={"text/plain"})
    if data:
        bundle = plain_bundle(data)
        if len(json.dumps(bundle)) <= BUNDLE_BYTES:
            fields["data"] = bundle
    return fields


def of_error(error: BaseException) -> dict[str, Any]:
    """The result of code that raised; never raises an `Exception` itself."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = f"<the message of this {name} could not be made>"
    try:
        lines = traceback_lines(error)
    except Exception:
        lines = [f"{name}: {message}"]
    return {
        "error": {
            "name": cut(name, 1000),
            "message": cut(message, VALUE_CHARACTERS // 2),
            "traceback": [cut(line, LINE_CHARACTERS) for line in lines],
        }
    }


def traceback_lines(error: BaseException) -> list[str]:
    """The traceback as Python prints it, without frames that are not the user's business."""
    trace = error.__traceback__
    while trace is not None and is_internal(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    first = trace
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<cell "):
        trace = trace.tb_next
    trace = trace or first
    if isinstance(error, SyntaxError) and trace is None:
        lines = traceback.format_exception_only(error)
    else:
        formatted = traceback.TracebackException(type(error), error, trace, compact=True)
        _hide(formatted, set())
        lines = list(formatted.format())
    lines = "".join(lines).splitlines()
    if len(lines) > TRACEBACK_LINES:
        half = TRACEBACK_LINES // 2
        lines = [*lines[:half], f"  [{len(lines) - 2 * half} more lines]", *lines[-half:]]
    return lines


def _hide(formatted: traceback.TracebackException, seen: set[int]) -> None:
    if id(formatted) in seen:
        return
    seen.add(id(formatted))
    formatted.stack[:] = [frame for frame in formatted.stack if not is_internal(frame.filename)]
    others = [formatted.__cause__, formatted.__context__, *(getattr(formatted, "exceptions", None) or [])]
    for other in others:
        if other is not None:
            _hide(other, seen)


def plain_bundle(data: dict[str, Any]) -> dict[str, Any]:
    """A MIME bundle as JSON can hold it: binary values in base64."""
    plain: dict[str, Any] = {}
    for kind, value in data.items():
        if isinstance(value, bytes):
            plain[str(kind)] = base64.b64encode(value).decode("ascii")
        elif isinstance(value, str):
            plain[str(kind)] = value.encode("utf-8", "backslashreplace").decode("utf-8")
        else:
            plain[str(kind)] = json.loads(json.dumps(value, default=str))
    return plain


def display_json(data: dict[str, Any], metadata: dict[str, Any]) -> bytes:
    """A display as JSON; one that is too long is replaced by a sentence that says so."""
    encoded = json.dumps({"data": plain_bundle(data), "metadata": metadata}, default=str).encode()
    if len(encoded) > BUNDLE_BYTES:
        sentence = f"[A display of {len(encoded)} bytes was left out: the limit is {BUNDLE_BYTES}.]"
        encoded = json.dumps({"data": {"text/plain": sentence}, "metadata": {}}).encode()
    return encoded


def encode(fields: dict[str, Any]) -> bytes:
    """A result as JSON, short enough for one message."""
    encoded = json.dumps(fields).encode()
    if len(encoded) > channel.MESSAGE_LIMIT_BYTES:
        fields.pop("data", None)
        if fields.get("value") is not None:
            fields["value"] = cut(fields["value"], VALUE_CHARACTERS // 12)
        if "error" in fields:
            error = fields["error"]
            error["message"] = cut(error["message"], VALUE_CHARACTERS // 12)
            error["traceback"] = error["traceback"][-10:]
        encoded = json.dumps(fields).encode()
    return encoded
