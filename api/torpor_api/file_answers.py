"""Answers with what a file has: headers, ranges, and pieces that are sent as fast as they are taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from torpor_api.presence import Presence
from torpor_worker.errors import WorkerError

log = structlog.get_logger(__name__)

STALL_SECONDS = 60.0
"""How long a client may take no piece of an answer, or send none of a body."""
PRESENCE_BYTES = 1 << 20
"""How often, in bytes, it is asked whether the client still listens."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Pieces(Response):
    """An answer in pieces. If they end too early, the connection is cut: the client must not take it for whole."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        until_sent: AsyncExitStack,
        status: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        """`until_sent` is closed when the answer is over, however that ends."""
        self._pieces = pieces
        self._until_sent = until_sent
        self.status_code = status
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """The headers that were given, and the type."""
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.raw_headers = [*raw, (b"content-type", str(self.media_type).encode("latin-1"))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            async with self._until_sent:
                await self._send(receive, send)
        except (WorkerError, TimeoutError) as error:
            # An answer without its end makes the server close the connection.
            log.info("An answer was cut off.", path=scope["path"], reason=str(error) or "The client takes nothing.")

    async def _send(self, receive: Receive, send: Send) -> None:
        with Presence(receive) as presence:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            asked_at = sent = 0
            async for piece in self._pieces:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                sent += len(piece)
                if sent - asked_at > PRESENCE_BYTES:
                    asked_at = sent
                    if await presence.is_gone():
                        return
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def headers_of(about: Mapping[str, Any]) -> dict[str, str]:
    """What is told of a file or a folder in headers."""
    modified = datetime.fromtimestamp(max(0, about["modified_ns"]) / 1e9, UTC)
    return {
        "Torpor-Kind": about["kind"],
        "Torpor-Mode": f"{about['mode']:04o}",
        "ETag": f'"{about["tag"]}"',
        "Last-Modified": format_datetime(modified, usegmt=True),
    }


def attachment(path: str, suffix: str = "") -> dict[str, str]:
    """A browser saves it under the path's last name, and runs nothing of it."""
    name = path.rstrip("/").rpartition("/")[2].encode("utf-8", "surrogateescape") or b"files"
    return {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name + suffix.encode(), safe='')}",
        "X-Content-Type-Options": "nosniff",
    }


def asked_range(value: str | None) -> tuple[int, int | None] | None:
    """Start and stop of the one range that is asked for; None for all of it, as for what is not understood."""
    found = _RANGE.fullmatch(value.strip()) if value else None
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        return (-int(last), None) if last and int(last) else None
    if last and int(last) < int(first):
        return None
    return int(first), int(last) + 1 if last else None


def tag_of(value: str | None) -> str | None:
    """The tag of an `If-Match` or `If-Range` that names one."""
    if value is None or value.strip() == "*":
        return None
    return value.strip().removeprefix("W/").strip('"')
