"""The same server over streamable HTTP: each request carries the key of whom it is for."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers, MutableHeaders

from .cancelling import SESSION_HEADER, Cancelling
from .server import build_server
from .sources import DEFAULT_MACHINE, HeaderSource, bearer_token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HttpApp:
    """An ASGI application for one path. What it runs begins with the first request and ends with `close`."""

    def __init__(self, url: str, path: str, machine: str) -> None:
        self._source = HeaderSource(url, machine)
        self._server = build_server(self._source)
        self._server.middleware.append(Cancelling())
        self._app = self._server.streamable_http_app(
            streamable_http_path=path,
            stateless_http=True,
            # `_foreign` is stricter; the names under which this host is reached are known to its users only.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._running: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        if _foreign(headers.get("origin")):
            await _refuse(send, 403, "forbidden", "Pages of other sites may not use this.", "Use it from a program.")
        elif bearer_token(headers) is None:
            hint = "Send `Authorization: Bearer <account>.<secret>`."
            await _refuse(send, 401, "unauthorized", "The API key is missing.", hint, ("www-authenticate", "Bearer"))
        elif scope["method"] != "POST":  # there is nothing to listen to, and no session to end
            await _refuse(send, 405, "method_not_allowed", "Only POST is allowed here.", None, ("allow", "POST"))
        else:
            if self._running is None:
                self._running = asyncio.create_task(self._run(), name="mcp sessions")
            await self._ready.wait()
            await self._app(scope, receive, _naming(headers, send))

    async def _run(self) -> None:
        async with self._server.session_manager.run():
            self._ready.set()
            await asyncio.Event().wait()

    async def close(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._source.close()


def http_app(url: str, path: str = "/mcp", machine: str = DEFAULT_MACHINE) -> HttpApp:
    """The application for a Torpor server at `url`; `machine` is for requests that name none."""
    return HttpApp(url, path, machine)


def _foreign(origin: str | None) -> bool:
    """Whether a page of another host asks: the protocol wants that refused, against DNS rebinding.

    Programs send no origin, and what is served on the user's own host is the user's.
    """
    if origin is None:
        return False
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https"):
            return not parts.scheme  # `null`; an editor's or an application's own pages have schemes of theirs
        return host != "localhost" and not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _naming(headers: Headers, send: Send) -> Send:
    """Give a client that has no word yet, and may need one to cancel its calls, a word to send along."""
    if "mcp-protocol-version" in headers or SESSION_HEADER in headers:
        return send

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[SESSION_HEADER] = uuid.uuid4().hex
        await send(message)

    return named


async def _refuse(
    send: Send, status: int, code: str, message: str, hint: str | None, *headers: tuple[str, str]
) -> None:
    body = json.dumps({"code": code, "message": message} | ({"hint": hint} if hint else {})).encode()
    sent = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
    raw = [(name.encode(), value.encode()) for name, value in sent]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
