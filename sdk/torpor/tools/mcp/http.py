"""The same server over streamable HTTP: each request carries the key of whom it is for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers

from .server import build_server
from .sources import DEFAULT_MACHINE, HeaderSource, bearer_token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_UNAUTHORIZED = json.dumps(
    {
        "code": "unauthorized",
        "message": "The API key is missing.",
        "hint": "Send `Authorization: Bearer <account>.<secret>`.",
    }
).encode()


class HttpApp:
    """An ASGI application for one path. What it runs begins with the first request and ends with `close`."""

    def __init__(self, url: str, path: str, machine: str) -> None:
        self._server = build_server(HeaderSource(url, machine))
        # A page of another site's has no key, so that names of hosts decide nothing here.
        self._app = self._server.streamable_http_app(
            streamable_http_path=path,
            stateless_http=True,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._running: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if bearer_token(Headers(scope=scope)) is None:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _UNAUTHORIZED})
            return
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="mcp sessions")
        await self._ready.wait()
        await self._app(scope, receive, send)

    async def _run(self) -> None:
        async with self._server.session_manager.run():
            self._ready.set()
            await asyncio.Event().wait()

    async def close(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


def http_app(url: str, path: str = "/mcp", machine: str = DEFAULT_MACHINE) -> HttpApp:
    """The application for a Torpor server at `url`; `machine` is for requests that name none."""
    return HttpApp(url, path, machine)
