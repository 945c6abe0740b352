"""Applications of other distributions on this server, such as MCP at `/mcp`: entry points, loaded when used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from torpor_api.authentication import account_of_token, bearer_token
from torpor_api.errors import NotFound
from torpor_api.services import services_of

GROUP = "torpor.mounts"
"""Of entry points: `name = "module:factory"` is `factory(url, path)` at `/name`, an ASGI application with `close`."""


class Mount:
    """One of them. It speaks to this server as any client does, with the key of whoever asks it."""

    def __init__(self, entry: EntryPoint, url: str) -> None:
        self.path = f"/{entry.name}"
        self._entry = entry
        self._url = url
        self._loading: asyncio.Task[Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Errors are left to those who called."""
        await account_of_token(services_of(Request(scope)), bearer_token(Headers(scope=scope)))
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load), name=f"load {self.path}")
        app = await asyncio.shield(self._loading)
        if app is None:
            raise NotFound(f"What serves {self.path} is not installed here.", hint="pip install 'torpor[mcp]'")
        await app(scope, receive, send)

    def _load(self) -> Any:
        try:
            factory = self._entry.load()
        except ImportError:
            return None
        return factory(self._url, self.path)

    async def close(self) -> None:
        """End what it runs."""
        if self._loading is not None and (app := await self._loading) is not None:
            await app.close()


def mounts(url: str) -> list[Mount]:
    """Every application that is installed, for the server at this address."""
    return [Mount(entry, url) for entry in entry_points(group=GROUP)]


def routes(found: Iterable[Mount]) -> list[BaseRoute]:
    """Their routes."""
    return [Route(mount.path, mount, include_in_schema=False) for mount in found]
