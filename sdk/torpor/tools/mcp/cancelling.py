"""Cancellation over HTTP, for clients of the protocol's versions with sessions.

They say it with a request of its own. This server has no sessions: it gives each client a word to send along, and
remembers only which of the calls that run now came with it. Newer clients close the call's own connection instead.
"""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from .sources import bearer_token, headers_of

SESSION_HEADER = "mcp-session-id"

Place = tuple[str, str, str]
"""A key, the word of a client, and the client's number for a call."""


class Cancelling:
    """Middleware: the calls that run, and their ends."""

    def __init__(self) -> None:
        self._running: dict[Place, anyio.CancelScope] = {}

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Run a call so that it can be cancelled, or cancel one."""
        if ctx.method == "notifications/cancelled":
            unwanted = self._running.get(_place(ctx, (ctx.params or {}).get("requestId")))
            if unwanted is not None:
                unwanted.cancel()
        # Without a word of its own a client's numbers are those of any other with the same key.
        if ctx.method != "tools/call" or SESSION_HEADER not in headers_of(ctx):
            return await call_next(ctx)
        place = _place(ctx, ctx.request_id)
        with anyio.CancelScope() as scope:
            self._running[place] = scope
            try:
                return await call_next(ctx)
            finally:
                if self._running.get(place) is scope:
                    del self._running[place]
        raise MCPError(INTERNAL_ERROR, "The call was cancelled.")


def _place(context: ServerRequestContext[Any, Any], number: object) -> Place:
    headers = headers_of(context)
    return bearer_token(headers) or "", headers.get(SESSION_HEADER, ""), repr(number)
