"""What happens to every HTTP request before any route: unforeseen errors, CORS, body limit. Pure ASGI."""

from __future__ import annotations

import re

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor_api.bodies import BODY_LIMIT_BYTES
from torpor_api.errors import BodyTooLarge
from torpor_api.exception_handlers import error_response

FILE_LIMIT_BYTES = 512 * 1024 * 1024
"""No machine has room for more."""
EXPOSED_HEADERS = [
    "Torpor-Machine",
    "Torpor-Instruction-Seq",
    "Retry-After",
    "Torpor-Error",
    "Torpor-Kind",
    "Torpor-Mode",
    "Torpor-SHA256",
    "ETag",
    "Content-Range",
    "Accept-Ranges",
    "Content-Disposition",
]
_FILE = re.compile(r"/v1/machine/[^/]+/files/")


class Edge:
    """Refuses large bodies and answers what no handler caught; an answer that has begun is cut off instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            _check_length(scope)
            await self._app(scope, _limited(scope, receive), watched)
        except Exception as error:
            response = error_response(error, method=scope["method"], path=scope["path"])
            if begun:
                raise
            await response(scope, receive, send)


def _limit_bytes(scope: Scope) -> int:
    """How large a request's body may be: a file's more than JSON."""
    is_file = scope["method"] == "PUT" and _FILE.match(scope["path"])
    return FILE_LIMIT_BYTES if is_file else BODY_LIMIT_BYTES


def _check_length(scope: Scope) -> None:
    length, limit_bytes = Headers(scope=scope).get("content-length", ""), _limit_bytes(scope)
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit_bytes):
        raise BodyTooLarge(f"The request's body is larger than {limit_bytes} bytes.")


def _limited(scope: Scope, receive: Receive) -> Receive:
    size, limit_bytes = 0, _limit_bytes(scope)

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit_bytes:
            raise BodyTooLarge(f"The request's body is larger than {limit_bytes} bytes.")
        return message

    return limited


def install(app: FastAPI) -> None:
    """Put it before an application's routes. Any origin may call: a key is needed, and cookies play no part."""
    app.add_middleware(Edge)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
        max_age=24 * 3600,
    )
