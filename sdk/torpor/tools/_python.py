"""The tool `python`: what every framework's module is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine, AsyncRunStream
from .._client import Client
from .._errors import ApiError, Unauthorized
from .._machine import Machine, RunStream
from .._models import Instruction
from .._reading import DEFAULT_TOKENS
from .._result import Result
from ._arguments import AskedForOutput, AskedToRun, BadArguments, asked
from ._binding import idempotency_key, machine_of
from ._ending import end, end_async, end_in_thread
from ._output import read_on, says_how_to_read_on
from ._rendering import Rendered, refusal, render
from ._turns import turn
from ._words import DESCRIPTION, PARAMETERS


class PythonTool:
    """Runs a model's code on the machine of its conversation, and answers as models read.

    Of a long output the answer has the beginning and the end, and names the code that shows the rest, such as
    `%output 7 9000`, which the tool answers from the machine's log.

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
        try:
            wish = asked(arguments)
            if isinstance(wish, AskedForOutput):
                return self._output(self.machine.instruction(wish.seq), wish)
            stream = self._stream(self.machine, wish, call_id)
            try:
                return self._run(stream)
            except (KeyboardInterrupt, SystemExit):
                end(self.machine, stream)
                raise
        except (BadArguments, ApiError) as error:
            return _refused(error)

    async def acall(self, arguments: Mapping[str, Any] | str, *, call_id: str | None = None) -> Rendered:
        """The same for asynchronous programs, whatever the machine is. Cancelled, it ends what it runs, only that."""
        try:
            wish = asked(arguments)
            if isinstance(wish, AskedForOutput):
                return self._output(await self._instruction(wish.seq), wish)
            async with turn(self.machine):
                return await self._arun(wish, call_id)
        except (BadArguments, ApiError) as error:
            return _refused(error)

    async def _arun(self, wish: AskedToRun, call_id: str | None) -> Rendered:
        if isinstance(self.machine, AsyncMachine):
            following = self._async_stream(self.machine, wish, call_id)
            try:
                return self._rendered(await following.result())
            except asyncio.CancelledError:
                await end_async(self.machine, following)
                raise
        stream = self._stream(self.machine, wish, call_id)
        try:
            return await asyncio.to_thread(self._run, stream)
        except asyncio.CancelledError:  # the thread goes on until the interrupt has ended what it waits for
            await end_in_thread(self.machine, stream)
            raise

    async def _instruction(self, seq: int) -> Instruction:
        if isinstance(self.machine, AsyncMachine):
            return await self.machine.instruction(seq)
        return await asyncio.to_thread(self.machine.instruction, seq)

    def _stream(self, machine: Machine, wish: AskedToRun, call_id: str | None) -> RunStream:
        return machine.stream(wish.code, queue=True, **self._options(wish, call_id))

    def _async_stream(self, machine: AsyncMachine, wish: AskedToRun, call_id: str | None) -> AsyncRunStream:
        return machine.stream(wish.code, queue=True, **self._options(wish, call_id))

    def _options(self, wish: AskedToRun, call_id: str | None) -> dict[str, Any]:
        seconds = self._timeout_seconds if wish.timeout_seconds is None else wish.timeout_seconds
        key = idempotency_key(call_id, wish.code, wish.timeout_seconds)
        return {"timeout_seconds": seconds, "idempotency_key": key}

    def _run(self, stream: RunStream) -> Rendered:
        return self._rendered(stream.result())

    def _rendered(self, result: Result) -> Rendered:
        return render(result, limit_tokens=self._limit_tokens, rest=says_how_to_read_on(result.seq))

    def _output(self, instruction: Instruction, wish: AskedForOutput) -> Rendered:
        return read_on(instruction, wish.position, limit_tokens=self._limit_tokens)


def _refused(error: BadArguments | ApiError) -> Rendered:
    if isinstance(error, Unauthorized):
        raise error
    return Rendered(str(error), is_error=True) if isinstance(error, BadArguments) else refusal(error)
