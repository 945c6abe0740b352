"""Cuts a stream of bytes into lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ._errors import ProtocolError


class JsonLines:
    """Newline-delimited JSON, in whatever pieces it comes. Spaces between lines keep the connection alive."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[dict[str, object]]:
        """The objects whose lines end in this piece. Raises `ProtocolError` for a line that is no object."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._pieces.append(line)
            whole = b"".join(self._pieces)
            self._pieces.clear()
            if whole.strip():
                yield _object(whole)
        if rest:
            self._pieces.append(rest)


def _object(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ProtocolError("A line of the stream is no JSON object.")
    return value
