"""What is written down of a process while it is served, for the worker that may have to take it over."""

from __future__ import annotations

from dataclasses import replace

from torpor_worker.sandbox import Sandbox
from torpor_worker.survivors import Clock, CommandClock, Origin, ProcessFacts


class Testament:
    """The facts of one process, kept with its sandbox. Writing them may raise `SandboxError`."""

    def __init__(self, sandbox: Sandbox, facts: ProcessFacts) -> None:
        """Nothing is written before a method says so."""
        self._sandbox = sandbox
        self._facts = facts

    def has_origin(self, seq: int) -> bool:
        """Whether it says where the output of this instruction goes."""
        return self._facts.origin is not None and self._facts.origin.seq == seq

    async def write(self) -> None:
        """Write it down as it is."""
        await self._sandbox.remember(self._facts)

    async def write_origin(self, origin: Origin) -> None:
        """Write down where the output goes of the instruction that came with the snapshot."""
        self._facts = replace(self._facts, origin=origin)
        await self.write()

    async def write_clocks(self, clock: Clock | None, commands: tuple[CommandClock, ...]) -> None:
        """Write down the times of what runs, if anything does."""
        self._facts = replace(self._facts, clock=clock or self._facts.clock, commands=commands)
        if clock is not None or commands:
            await self.write()
