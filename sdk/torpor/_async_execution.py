"""The asynchronous twin of `_execution`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from . import _calls, _http
from ._async_connection import AsyncConnection
from ._async_run_stream import AsyncRunStream
from ._deadline import not_finished
from ._models import Instruction
from ._result import Result
from ._stream import StreamState

if TYPE_CHECKING:
    from ._async_machine import AsyncMachine


class AsyncExecution:
    """A handle on an instruction. It needs no process to live: `machine.execution(seq)` makes another one, anywhere.

    >>> training = await machine.start("sum(range(10**6))", timeout_seconds=3600)
    >>> (await machine.execution(training.seq).wait()).value  # another process, an hour later
    '499999500000'
    >>> await training.done()
    True
    """

    def __init__(self, connection: AsyncConnection, machine: AsyncMachine, seq: int) -> None:
        self._connection = connection
        self.machine = machine
        """The machine that it runs on."""
        self.seq = seq
        """The instruction's number on its machine."""

    @property
    def machine_name(self) -> str:
        """The name of its machine; with `seq` it says all that another process needs to find it."""
        return self.machine.name

    async def done(self) -> bool:
        """Whether it has a result. Raises `InstructionNotFound`.

        >>> execution = await machine.start("3 + 5")
        >>> (await execution.wait()).value
        '8'
        >>> await execution.done()
        True
        """
        call = _calls.instruction(self.machine.name, self.seq, events=False)
        return _http.parsed(await self._connection.send(call), Instruction).state == "finished"

    async def wait(self, timeout: float | None = None) -> Result:
        """The result, as soon as it is there. An error of the code is in it, and is not raised.

        Raises `NotFinished`, a TimeoutError, after `timeout` seconds (None: never). It runs on then, and can be waited
        for again.

        >>> execution = await machine.start("3 + 5")
        >>> (await execution.wait(timeout=60)).value
        '8'
        """
        try:
            return await asyncio.wait_for(self.stream().result(), timeout)
        except asyncio.TimeoutError as error:
            raise not_finished(timeout) from error

    async def cancel(self) -> bool:
        r"""Interrupt it, and nothing else, as soon as it begins if it still waits; False if it is finished.

        >>> endless = await machine.start("print('begun', flush=True)\nwhile True: pass")
        >>> (await anext(aiter(endless.stream()))).type
        'stdout'
        >>> await endless.cancel()
        True
        >>> (await endless.wait()).error.name
        'KeyboardInterrupt'
        """
        return await self.machine.interrupt(self.seq)

    async def send_stdin(self, text: str) -> None:
        r"""Send it more to read; it was started with `stdin_open`. Raises `InstructionNotRunning`, `StdinClosed`.

        >>> asking = await machine.start("input()", stdin_open=True, timeout_seconds=60)
        >>> await asking.send_stdin("Ada\n")
        >>> (await asking.wait()).value
        "'Ada'"
        """
        await self._connection.send(_calls.send_stdin(self.machine.name, self.seq, {"data": text}))

    async def close_stdin(self) -> None:
        """Send it nothing more: whoever reads on meets the end. Raises as `send_stdin` does.

        >>> asking = await machine.start("import sys; sys.stdin.read()", stdin_open=True, timeout_seconds=60)
        >>> await asking.close_stdin()
        >>> (await asking.wait()).value
        "''"
        """
        await self._connection.send(_calls.send_stdin(self.machine.name, self.seq, {"close": True}))

    def stream(self) -> AsyncRunStream:
        """All that it says, from its beginning.

        >>> execution = await machine.start("print('hello')")
        >>> [event.type async for event in execution.stream()]
        ['stdout', 'result']
        """
        return AsyncRunStream(self._connection, StreamState(self.machine.name, seq=self.seq))

    def __repr__(self) -> str:
        return f"AsyncExecution({self.machine.name!r}, seq={self.seq})"
