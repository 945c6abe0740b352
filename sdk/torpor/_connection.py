"""Sends calls to the server until they are answered, and follows streams over cut connections."""

from __future__ import annotations

import contextlib
import copy
import time
import weakref
from collections.abc import Generator
from typing import BinaryIO

import httpx2

from . import _http
from ._calls import Call
from ._config import Config
from ._deadline import Deadline
from ._errors import FileChanged, MachineNotFound
from ._events import Event
from ._retry import Attempts, Contact, RetryPolicy
from ._stream import StreamState
from ._transfer import Download, Source


class Connection:
    """The way of a `Client` and its machines to the server. Safe to share between threads."""

    def __init__(self, config: Config, retry: RetryPolicy, transport: httpx2.BaseTransport | None) -> None:
        self.url: str = config.url
        self._retry = retry
        self._contact = Contact()
        self._making: Call | None = None
        self._http = httpx2.Client(
            base_url=config.url,
            headers=_http.headers(config),
            transport=transport,
            verify=_http.verification(config),
            limits=_http.LIMITS,
            trust_env=_http.uses_proxies(config),
        )
        # Shared by all that `making` makes: when none is left, nobody can use the connections any more.
        weakref.finalize(self._contact, self._http.close)

    def making(self, call: Call | None) -> Connection:
        """The same connection for one machine, which it makes by this call when there is none; None: never."""
        other = copy.copy(self)
        other._making = call
        return other

    def send(self, call: Call) -> httpx2.Response:
        """The good answer to a call. Raises `ApiError` or `ServerUnreachable`."""
        try:
            return self._send(call)
        except MachineNotFound:
            if self._making is None or call.method == "DELETE":
                raise
            self._send(self._making)
            return self._send(call)

    def _send(self, call: Call) -> httpx2.Response:
        attempts = Attempts(call, self._retry, self._contact)
        while True:
            try:
                response = self._http.send(_http.request(self._http, call))
            except httpx2.TransportError as error:
                delay = attempts.failed(error)
            else:
                answer = attempts.answered(
                    response.status_code, _http.error_body(response), _http.retry_after(response)
                )
                if answer is None:
                    return response
                delay = answer
            time.sleep(delay)

    def download(self, call: Call, file: BinaryIO) -> int:
        """Write a good answer's body to a file that can be rewound; how many bytes. Raises as `send` does."""
        attempts = Attempts(call, self._retry, self._contact)
        while True:
            try:
                with contextlib.closing(self._http.send(_http.request(self._http, call), stream=True)) as response:
                    if not response.is_success:
                        response.read()
                    delay = attempts.answered(
                        response.status_code, _http.error_body(response), _http.retry_after(response)
                    )
                    if delay is None:
                        file.seek(0)
                        file.truncate()
                        return sum(file.write(piece) for piece in response.iter_raw())
            except httpx2.TransportError as error:
                delay = attempts.failed(error)
            time.sleep(delay)

    def upload(self, call: Call, source: Source) -> httpx2.Response:
        """The good answer to a call with a body, which is sent from its beginning again if need be."""
        try:
            return self._upload(call, source)
        except MachineNotFound:
            if self._making is None:
                raise
            self._send(self._making)
            return self._upload(call, source)

    def _upload(self, call: Call, source: Source) -> httpx2.Response:
        attempts = Attempts(call, self._retry, self._contact)
        while True:
            try:
                response = self._http.send(_http.upload(self._http, call, source.pieces(), source.size))
            except httpx2.TransportError as error:
                delay = attempts.failed(error)
            else:
                answer = attempts.answered(
                    response.status_code, _http.error_body(response), _http.retry_after(response)
                )
                if answer is None:
                    return response
                delay = answer
            time.sleep(delay)

    def fetch(self, state: Download) -> None:
        """Download a file, over cut connections. Raises as `send` does."""
        try:
            self._fetch(state)
        except MachineNotFound:
            if self._making is None:
                raise
            self._send(self._making)
            self._fetch(state)

    def _fetch(self, state: Download) -> None:
        attempts = Attempts(state.next_call(), self._retry, self._contact)
        while not state.finished:
            try:
                with contextlib.closing(
                    self._http.send(_http.request(self._http, state.next_call()), stream=True)
                ) as response:
                    if not response.is_success:
                        response.read()
                    delay = attempts.answered(
                        response.status_code, _http.error_body(response), _http.retry_after(response)
                    )
                    if delay is None:
                        state.opened(response.status_code, response.headers)
                        for piece in response.iter_raw():
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
                time.sleep(delay)

    def follow(
        self, state: StreamState, *, to_the_end: bool = False, deadline: Deadline | None = None
    ) -> Generator[Event, None, None]:
        """The events that are still to come, up to the result; `to_the_end` also those behind it that exist."""
        deadline = deadline or Deadline()
        try:
            yield from self._follow(state, to_the_end, deadline)
        except MachineNotFound:
            if self._making is None or state.events:
                raise
            self._send(self._making)
            yield from self._follow(state, to_the_end, deadline)

    def _follow(self, state: StreamState, to_the_end: bool, deadline: Deadline) -> Generator[Event, None, None]:
        attempts = Attempts(state.next_call(), self._retry, self._contact)
        while state.finished is None:
            try:
                with contextlib.closing(
                    self._http.send(_http.request(self._http, deadline.limited(state.next_call())), stream=True)
                ) as response:
                    if not response.is_success:
                        response.read()
                    delay = attempts.answered(
                        response.status_code, _http.error_body(response), _http.retry_after(response)
                    )
                    if delay is None:
                        state.opened(response.headers)
                        for piece in response.iter_raw():
                            for event in state.feed(piece):
                                attempts.progress()
                                yield event
                                if state.finished is not None and not to_the_end:
                                    return
                            if deadline.too_patient():
                                delay = 0.0
                                break
                        else:
                            delay = None if state.finished else attempts.failed(None)
            except httpx2.TransportError as error:
                if state.finished is not None:
                    return
                delay = attempts.failed(error)
            if delay is not None:
                state.broken()
                time.sleep(deadline.before(delay))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
