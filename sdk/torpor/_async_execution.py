"""The asynchronous twin of `_execution`."""

from __future__ import annotations

import asyncio

from . import _calls, _http
from ._async_connection import AsyncConnection
from ._async_run_stream import AsyncRunStream
from ._deadline import not_finished
from ._models import Instruction, Interrupted
from ._result import Result
from ._stream import StreamState


class AsyncExecution:
    """An instruction that runs whether anybody waits for it or not, and can be asked after from any process.

    >>> execution = await machine.start("sum(range(10**6))")
    >>> (await execution.wait()).value
    '499999500000'
    >>> await execution.done()
    True
    """

    def __init__(self, connection: AsyncConnection, machine_name: str, seq: int) -> None:
        self._connection = connection
        self._machine_name = machine_name
        self._seq = seq

    @property
    def machine_name(self) -> str:
        """The machine that it runs on."""
        return self._machine_name

    @property
    def seq(self) -> int:
        """Its number on that machine: with both, `client.machine(machine_name).execution(seq)` is it again."""
        return self._seq

    async def done(self) -> bool:
        """Whether it is finished, with a value or an error. Raises `InstructionNotFound` if there is none."""
        call = _calls.instruction(self._machine_name, self._seq, events=False)
        return _http.parsed(await self._connection.send(call), Instruction).state == "finished"

    async def wait(self, timeout_seconds: float | None = None) -> Result:
        """What came of it, when it is finished. An error of the code is in the result, and is not raised.

        Raises `NotFinished` after `timeout_seconds` (None: never). It runs on then, and can be waited for again.
        """
        try:
            return await asyncio.wait_for(self.stream().result(), timeout_seconds)
        except asyncio.TimeoutError as error:
            raise not_finished(timeout_seconds) from error

    async def cancel(self) -> bool:
        """End it, and nothing else, with a KeyboardInterrupt; whether it was running. The machine lives on."""
        call = _calls.interrupt(self._machine_name, self._seq)
        return _http.parsed(await self._connection.send(call), Interrupted).interrupted

    def stream(self) -> AsyncRunStream:
        """What it has said from its beginning, and says from now on."""
        return AsyncRunStream(self._connection, StreamState(self._machine_name, seq=self._seq))

    def __repr__(self) -> str:
        return f"AsyncExecution(machine_name={self._machine_name!r}, seq={self._seq})"
