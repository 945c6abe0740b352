"""The tool `python`: what every framework's module is made of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._client import Client
from .._errors import ApiError, Unauthorized
from .._machine import Machine, RunStream
from .._reading import DEFAULT_TOKENS
from .._result import Result
from ._binding import idempotency_key, machine_of
from ._ending import end, end_async, end_in_thread
from ._rendering import Rendered, refusal, render
from ._turns import turn
from ._words import DESCRIPTION, PARAMETERS


class PythonTool:
    """Runs a model's code on the machine of its conversation, and answers as models read.

    >>> tool = PythonTool(client, conversation="thread-42")
    >>> tool.call({"code": "1 / 0"}).is_error
    True
    """

    name = "python"
    description = DESCRIPTION
    parameters = PARAMETERS

    def __init__(
        self,
        machine: Machine | AsyncMachine | Client | AsyncClient,
        conversation: str | None = None,
        *,
        timeout_seconds: float | None = None,
        limit_tokens: int = DEFAULT_TOKENS,
    ) -> None:
        """For one machine, or with a client for that of a conversation.

        Args:
            machine: The machine, or a client.
            conversation: With a client, the id of the conversation or thread: the same id, the same machine.
            timeout_seconds: After so much running time code is ended, unless the model asks for another time.
            limit_tokens: About how long an answer may be; of what is longer, beginning and end are kept.
        """
        if isinstance(machine, Client | AsyncClient):
            if conversation is None:
                raise ValueError("With a client, `conversation` says whose machine it is.")
            machine = machine_of(machine, conversation)
        self.machine = machine
        self._timeout_seconds = timeout_seconds
        self._limit_tokens = limit_tokens

    def call(self, arguments: Mapping[str, Any] | str, *, call_id: str | None = None) -> Rendered:
        """Do what a model asks for, as a mapping or as JSON. Errors of the code, and refusals, are in the answer.

        `call_id` is the framework's name for the call: sent again, it is not run again. Raises `Unauthorized` and
        `ServerUnreachable`, which no model can mend, and TypeError for an asynchronous machine. Ctrl-C ends what it
        runs, and only that.
        """
        if isinstance(self.machine, AsyncMachine):
            raise TypeError("This machine is asynchronous: use `await tool.acall(...)`.")
        asked = _parsed(arguments)
        if isinstance(asked, str):
            return Rendered(asked, is_error=True)
        stream = self._stream(self.machine, asked, call_id)
        try:
            return self._run(stream)
        except (KeyboardInterrupt, SystemExit):
            end(self.machine, stream)
            raise

    async def acall(self, arguments: Mapping[str, Any] | str, *, call_id: str | None = None) -> Rendered:
        """The same for asynchronous programs, whatever the machine is. Cancelled, it ends what it runs, only that."""
        asked = _parsed(arguments)
        if isinstance(asked, str):
            return Rendered(asked, is_error=True)
        async with turn(self.machine):
            return await self._arun(asked, call_id)

    async def _arun(self, asked: tuple[str, float | None], call_id: str | None) -> Rendered:
        if isinstance(self.machine, AsyncMachine):
            following = self.machine.stream(asked[0], queue=True, **self._options(asked, call_id))
            try:
                return self._rendered(await following.result())
            except asyncio.CancelledError:
                await end_async(self.machine, following)
                raise
            except ApiError as error:
                return _refused(error)
        stream = self._stream(self.machine, asked, call_id)
        try:
            return await asyncio.to_thread(self._run, stream)
        except asyncio.CancelledError:  # the thread goes on until the interrupt has ended what it waits for
            await end_in_thread(self.machine, stream)
            raise

    def _stream(self, machine: Machine, asked: tuple[str, float | None], call_id: str | None) -> RunStream:
        return machine.stream(asked[0], queue=True, **self._options(asked, call_id))

    def _options(self, asked: tuple[str, float | None], call_id: str | None) -> dict[str, Any]:
        code, timeout_seconds = asked
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return {"timeout_seconds": seconds, "idempotency_key": idempotency_key(call_id, code)}

    def _run(self, stream: RunStream) -> Rendered:
        try:
            return self._rendered(stream.result())
        except ApiError as error:
            return _refused(error)

    def _rendered(self, result: Result) -> Rendered:
        return render(result, limit_tokens=self._limit_tokens)


def _refused(error: ApiError) -> Rendered:
    if isinstance(error, Unauthorized):
        raise error
    return refusal(error)


def _parsed(arguments: Mapping[str, Any] | str) -> tuple[str, float | None] | str:
    """Code and time-out; or what is wrong, in words that a model can follow."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            return f'The arguments are not JSON ({error}): they read {{"code": "..."}}.'
    if not isinstance(arguments, Mapping) or not isinstance(code := arguments.get("code"), str):
        return 'The arguments must be an object with a text `code`: {"code": "..."}.'
    timeout_seconds = arguments.get("timeout_seconds")
    if timeout_seconds is not None and (
        isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float)
    ):
        return "`timeout_seconds` must be a number of seconds."
    return code, timeout_seconds
