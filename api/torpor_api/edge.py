"""What happens to every HTTP request before any route: unforeseen errors, CORS, body limit. Pure ASGI."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor_api.bodies import BODY_LIMIT_BYTES
from torpor_api.errors import BodyTooLarge
from torpor_api.exception_handlers import error_response

EXPOSED_HEADERS = ["Torpor-Machine", "Torpor-Instruction-Seq", "Retry-After"]


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
            await self._app(scope, _limited(receive), watched)
        except Exception as error:
            response = error_response(error, method=scope["method"], path=scope["path"])
            if begun:
                raise
            await response(scope, receive, send)


def _check_length(scope: Scope) -> None:
    length = Headers(scope=scope).get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > BODY_LIMIT_BYTES):
        raise BodyTooLarge(f"The request's body is larger than {BODY_LIMIT_BYTES} bytes.")


def _limited(receive: Receive) -> Receive:
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_LIMIT_BYTES:
            raise BodyTooLarge(f"The request's body is larger than {BODY_LIMIT_BYTES} bytes.")
        return message

    return limited


def install(app: FastAPI) -> None:
    """Put it before an application's routes. Any origin may call: a key is needed, and cookies play no part."""
    app.add_middleware(Edge)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
        max_age=24 * 3600,
    )
