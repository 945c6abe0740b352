"""JSON as it leaves the server: compact, ASCII only, and never with NaN in it."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def to_json(value: Any) -> bytes:
    """Encode. Whatever a guest made is in it: lone surrogates are escaped, numbers that JSON lacks become null."""
    try:
        text = _encoder.encode(value)
    except ValueError:
        text = _encoder.encode(_finite(value))
    return text.encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class JsonResponse(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the answer."""
        return to_json(content)
