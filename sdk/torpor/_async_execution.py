"""The asynchronous twin of `_execution`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ._result import Result

if TYPE_CHECKING:
    from ._async_machine import AsyncMachine, AsyncRunStream


class AsyncExecution:
    """A handle on an instruction. It needs no process to live: `machine.execution(seq)` makes another one, anywhere.

    >>> training = await machine.start("model.fit(x, y)", timeout_seconds=3600)
    >>> (await machine.execution(training.seq).wait()).ok  # another process, an hour later
    True
    """

    def __init__(self, machine: AsyncMachine, seq: int) -> None:
        self.machine = machine
        self.seq = seq
        """The instruction's number on its machine."""

    async def done(self) -> bool:
        """Whether it has a result. Raises `InstructionNotFound`."""
        return (await self.machine.instruction(self.seq)).state == "finished"

    async def wait(self, timeout: float | None = None) -> Result:
        """The result, as soon as it is there. Raises TimeoutError after so many seconds; the instruction runs on."""
        return await asyncio.wait_for(self.stream().result(), timeout)

    async def cancel(self) -> bool:
        """Interrupt it, and nothing else; False if it does not run (any more)."""
        return await self.machine.interrupt(self.seq)

    def stream(self) -> AsyncRunStream:
        """All that it says, from its beginning."""
        return self.machine.attach(self.seq)

    def __repr__(self) -> str:
        return f"AsyncExecution({self.machine.name!r}, seq={self.seq})"
