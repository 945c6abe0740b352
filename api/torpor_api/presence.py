"""Whether the client still listens, asked seldom so that short answers pay nothing for it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive


class Presence:
    """One client's connection after its body was read. Use as a context manager."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listening: asyncio.Task[Any] | None = None

    def __enter__(self) -> Presence:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.cancel()

    async def is_gone(self) -> bool:
        """Whether it has hung up."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._hang_up(), name="client presence")
            await asyncio.sleep(0)
        return self._listening.done()

    async def _hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
