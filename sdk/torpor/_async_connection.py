"""The asynchronous twin of `_connection`."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncGenerator, Iterator
from typing import BinaryIO

import httpx2

from . import _http
from ._calls import Call
from ._config import Config
from ._errors import FileChanged, MachineNotFound
from ._events import Event
from ._retry import Attempts, Contact, RetryPolicy
from ._stream import StreamState
from ._transfer import Download, Source


class AsyncConnection:
    """The way of an `AsyncClient` and its machines to the server."""

    def __init__(self, config: Config, retry: RetryPolicy, transport: httpx2.AsyncBaseTransport | None) -> None:
        self.url: str = config.url
        self._retry = retry
        self._contact = Contact()
        self._making: Call | None = None
        self._http = httpx2.AsyncClient(
            base_url=config.url,
            headers=_http.headers(config),
            transport=transport,
            verify=_http.verification(config),
            limits=_http.LIMITS,
            trust_env=_http.uses_proxies(config),
        )

    def making(self, call: Call | None) -> AsyncConnection:
        """The same connection for one machine, which it makes by this call when there is none; None: never."""
        other = copy.copy(self)
        other._making = call
        return other

    async def send(self, call: Call) -> httpx2.Response:
        """The good answer to a call. Raises `ApiError` or `ServerUnreachable`."""
        try:
            return await self._send(call)
        except MachineNotFound:
            if self._making is None or call.method == "DELETE":
                raise
            await self._send(self._making)
            return await self._send(call)

    async def _send(self, call: Call) -> httpx2.Response:
        attempts = Attempts(call, self._retry, self._contact)
        while True:
            try:
                response = await self._http.send(_http.request(self._http, call))
            except httpx2.TransportError as error:
                delay = attempts.failed(error)
            else:
                answer = attempts.answered(
                    response.status_code, _http.error_body(response), _http.retry_after(response)
                )
                if answer is None:
                    return response
                delay = answer
            await asyncio.sleep(delay)

    async def download(self, call: Call, file: BinaryIO) -> int:
        """Write a good answer's body to a file that can be rewound; how many bytes. Raises as `send` does."""
        attempts = Attempts(call, self._retry, self._contact)
        while True:
            try:
                async with contextlib.aclosing(
                    await self._http.send(_http.request(self._http, call), stream=True)
                ) as response:
                    if not response.is_success:
                        await response.aread()
                    delay = attempts.answered(
                        response.status_code, _http.error_body(response), _http.retry_after(response)
                    )
                    if delay is None:
                        file.seek(0)
                        file.truncate()
                        return sum([file.write(piece) async for piece in response.aiter_raw()])
            except httpx2.TransportError as error:
                delay = attempts.failed(error)
            await asyncio.sleep(delay)

    async def upload(self, call: Call, source: Source) -> httpx2.Response:
        """The good answer to a call with a body, which is sent from its beginning again if need be."""
        try:
            return await self._upload(call, source)
        except MachineNotFound:
            if self._making is None:
                raise
            await self._send(self._making)
            return await self._upload(call, source)

    async def _upload(self, call: Call, source: Source) -> httpx2.Response:
        attempts = Attempts(call, self._retry, self._contact)
        while True:
            try:
                request = _http.upload(self._http, call, _elsewhere(source.pieces()), source.size)
                response = await self._http.send(request)
            except httpx2.TransportError as error:
                delay = attempts.failed(error)
            else:
                answer = attempts.answered(
                    response.status_code, _http.error_body(response), _http.retry_after(response)
                )
                if answer is None:
                    return response
                delay = answer
            await asyncio.sleep(delay)

    async def fetch(self, state: Download) -> None:
        """Download a file, over cut connections. Raises as `send` does."""
        try:
            await self._fetch(state)
        except MachineNotFound:
            if self._making is None:
                raise
            await self._send(self._making)
            await self._fetch(state)

    async def _fetch(self, state: Download) -> None:
        attempts = Attempts(state.next_call(), self._retry, self._contact)
        while not state.finished:
            try:
                async with contextlib.aclosing(
                    await self._http.send(_http.request(self._http, state.next_call()), stream=True)
                ) as response:
                    if not response.is_success:
                        await response.aread()
                    delay = attempts.answered(
                        response.status_code, _http.error_body(response), _http.retry_after(response)
                    )
                    if delay is None:
                        state.opened(response.status_code, response.headers)
                        async for piece in response.aiter_raw():
                            state.feed(piece)
                            attempts.progress()
                        state.ended()
                        delay = None if state.finished else attempts.failed(None)
            except httpx2.TransportError as error:
                state.ended()
                delay = None if state.finished else attempts.failed(error)
            except FileChanged:
                if not state.start_anew():
                    raise
                delay = 0.0
            if delay is not None:
                await asyncio.sleep(delay)

    async def follow(self, state: StreamState, *, to_the_end: bool = False) -> AsyncGenerator[Event, None]:
        """The events that are still to come, up to the result; `to_the_end` also those behind it that exist."""
        try:
            async with contextlib.aclosing(self._follow(state, to_the_end)) as events:
                async for event in events:
                    yield event
        except MachineNotFound:
            if self._making is None or state.events:
                raise
            await self._send(self._making)
            async with contextlib.aclosing(self._follow(state, to_the_end)) as events:
                async for event in events:
                    yield event

    async def _follow(self, state: StreamState, to_the_end: bool) -> AsyncGenerator[Event, None]:
        attempts = Attempts(state.next_call(), self._retry, self._contact)
        while state.finished is None:
            try:
                async with contextlib.aclosing(
                    await self._http.send(_http.request(self._http, state.next_call()), stream=True)
                ) as response:
                    if not response.is_success:
                        await response.aread()
                    delay = attempts.answered(
                        response.status_code, _http.error_body(response), _http.retry_after(response)
                    )
                    if delay is None:
                        state.opened(response.headers)
                        async for piece in response.aiter_raw():
                            for event in state.feed(piece):
                                attempts.progress()
                                yield event
                                if state.finished is not None and not to_the_end:
                                    return
                        delay = None if state.finished else attempts.failed(None)
            except httpx2.TransportError as error:
                if state.finished is not None:
                    return
                delay = attempts.failed(error)
            if delay is not None:
                state.broken()
                await asyncio.sleep(delay)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def _elsewhere(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces that are read in another thread."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
