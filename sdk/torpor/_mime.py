"""The forms of a value, by MIME type: the wire has short names for the common ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "svg": "image/svg+xml",
    "html": "text/html",
    "markdown": "text/markdown",
    "latex": "text/latex",
    "json": "application/json",
    "pdf": "application/pdf",
}


def mime_bundle(value: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A value's `repr` and its other forms, as notebooks take them."""
    return {"text/plain": value, **{_TYPES.get(kind, kind): form for kind, form in data.items()}}
