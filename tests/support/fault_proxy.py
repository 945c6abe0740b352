"""An HTTP proxy in front of a server, which answers wrongly, or not at all, when a test says so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Final, Self

_LONGEST_HEAD_BYTES: Final = 1 << 20
_ERROR: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\nContent-Length: 51\r\n"
    b"Connection: close\r\n\r\n<Error><Code>InternalError</Code></Error>          "
)
_SUCCESS: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class HttpFault(Enum):
    """What becomes of a request."""

    ERROR = "the server does not see it, and 500 is answered"
    CUT = "the server does not see it, and the connection is cut"
    LOST_ANSWER = "the server answers, and the connection is cut before that arrives"
    HALF_ANSWER = "the connection is cut in the middle of the answer"
    SUCCESS = "the server does not see it, and 200 is answered"
    HANG = "the server does not see it, and nothing is ever answered"
    LATE_ANSWER = "the server answers, and that never arrives"
    STALL = "half of the answer arrives, and nothing more ever"
    TRICKLE = "the answer arrives in small pieces, one every tenth of a second"


class FaultProxy:
    """Passes requests on to `address`, one to a connection; `choose` is asked about each, by its first line."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.choose: Callable[[str], HttpFault | None] = lambda request: None
        self.before: Callable[[str], Awaitable[None]] = _nothing
        """Awaited before each request is passed on, with its first line."""
        self.seen: list[str] = []
        """The first lines of all requests."""
        self._address = address
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LONGEST_HEAD_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The endpoint for clients."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def fail_first(self, pattern: str, fault: HttpFault, times: int = 1) -> None:
        """From now on this becomes of the first `times` requests whose first line has the pattern in it."""
        left = times

        def choose(request: str) -> HttpFault | None:
            nonlocal left
            if not left or not re.search(pattern, request):
                return None
            left -= 1
            return fault

        self.choose = choose

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
                await writer.drain()
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.seen.append(lines[0])
        fault = self.choose(lines[0])
        if fault is HttpFault.CUT:
            return
        if "expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if fault in {HttpFault.ERROR, HttpFault.SUCCESS}:
            writer.write(_ERROR if fault is HttpFault.ERROR else _SUCCESS)
            return
        if fault is HttpFault.HANG:
            await reader.read()  # until the client has gone
            return
        await self.before(lines[0])
        kept = [line for line in lines if line and not line.lower().startswith(("expect:", "connection:"))]
        answer = await self._ask("\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1") + body)
        half = (answer.index(b"\r\n\r\n") + len(answer)) // 2
        match fault:
            case HttpFault.LOST_ANSWER:
                pass
            case HttpFault.LATE_ANSWER:
                await reader.read()
            case HttpFault.HALF_ANSWER:
                writer.write(answer[:half])
            case HttpFault.STALL:
                writer.write(answer[:half])
                await reader.read()
            case HttpFault.TRICKLE:
                for at in range(0, len(answer), len(answer) // 15):
                    writer.write(answer[at : at + len(answer) // 15])
                    await asyncio.sleep(0.1)
            case _:
                writer.write(answer)

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


async def _nothing(_: str) -> None:
    pass
