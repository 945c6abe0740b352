"""What an instruction answers: its value as text and MIME bundle, or its error."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any

VALUE_LIMIT = 1 << 20
DATA_LIMIT = 4 << 20


def cut(text: str, limit: int = VALUE_LIMIT) -> str:
    """`text`, or its beginning with a sentence that says how much is missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit} more characters]"


def of_nothing() -> dict[str, Any]:
    """The result of a statement."""
    return {"value": None}


def of_value(shell: Any, value: Any) -> dict[str, Any]:
    """The result of an expression; runs the user's `__repr__` and friends, and raises what they raise."""
    if value is None:
        return {"value": None}
    shell.user_ns["_"] = value
    text = repr(value)
    fields: dict[str, Any] = {"value": cut(text)}
    data, _ = shell.display_formatter.format(value, exclude={"text/plain"})
    if data:
        fields["data"] = json.loads(bundle_json(data, {}))["data"]
    return fields


def of_error(error: BaseException) -> dict[str, Any]:
    """The result of code that raised."""
    lines = traceback.format_exception(error)
    try:
        message = str(error)
    except BaseException:
        message = "<its message could not be made>"
    return {"error": {"name": type(error).__name__, "message": message, "traceback": "".join(lines).splitlines()}}


def bundle_json(data: dict[str, Any], metadata: dict[str, Any]) -> bytes:
    """A MIME bundle as JSON; binary values in base64."""
    plain = {
        kind: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
        for kind, value in data.items()
    }
    return json.dumps({"data": plain, "metadata": metadata}, default=str).encode()
