"""A machine's sandbox, and what it has said that nobody has looked at yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import structlog

from torpor_worker.bell import Bell
from torpor_worker.command import CommandInput
from torpor_worker.errors import ProcessDied
from torpor_worker.instruction import Running
from torpor_worker.ledger import Entry
from torpor_worker.sandbox import Event, InterpreterDied, Output, Sandbox, SandboxDied, SandboxError, SandboxLost

log = structlog.get_logger(__name__)


class Durable(Protocol):
    """Knows what of a sandbox's output is durable already."""

    async def rest(self, output: Output) -> Output:
        """What of a piece is not; empty if all of it is."""
        ...


class Attached:
    """Reads a sandbox's events in a task of its own and rings the bell for each.

    What waits here is bounded by the guest's window: it says no more until what it said is acknowledged.
    """

    def __init__(self, sandbox: Sandbox, bell: Bell, machine: str, durable: Durable | None = None) -> None:
        """`durable`: what is left out of its output, where that was heard before."""
        self.sandbox = sandbox
        self.events: deque[Event] = deque()
        self._bell = bell
        self._machine = machine
        self._durable = durable
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"read:{machine}")

    async def _read(self) -> None:
        while True:
            try:
                event = await self.sandbox.receive()
                if self._durable is not None and isinstance(event, Output):
                    event = await self._durable.rest(event)
            except SandboxError as error:
                event = SandboxLost(str(error))
            except Exception as error:  # of the ledger's: without it nobody knows what was stored
                event = SandboxLost(f"what it said could not be compared with the log: {error}")
            self.events.append(event)
            self._bell.ring()
            if isinstance(event, SandboxLost | InterpreterDied):
                return

    def next(self) -> Event | None:
        """The next event that waits, if any. Raises `ProcessDied` at the last one."""
        if not self.events:
            return None
        event = self.events.popleft()
        if isinstance(event, SandboxLost | InterpreterDied):
            raise ProcessDied(event.reason)
        return event

    @property
    def ended(self) -> bool:
        """Whether the end of its process is among what waits."""
        return any(isinstance(event, SandboxLost | InterpreterDied) for event in self.events)

    def forget_output(self) -> None:
        """Drop output that waits: it is in the log already."""
        kept = [event for event in self.events if not isinstance(event, Output)]
        self.events.clear()
        self.events.extend(kept)

    async def acknowledge(self) -> bool:
        """Tell the guest that all it said is durable, unless something waits that is not; whether it was told.

        The caller has made everything durable that it took from here.
        """
        if self.events:
            return False
        await self.sandbox.acknowledge()
        return True

    async def feed(self, entry: Entry) -> None:
        """Send an instruction what an entry has for it to read."""
        if entry.position is None or entry.target is None:
            raise ValueError(f"entry {entry.id} was not started, or is for no instruction")
        await self.sandbox.feed(entry.position, entry.target, CommandInput.from_text(entry.code))

    async def escalate(self, running: Running, now: float) -> None:
        """Take the next step that ends an instruction, if one is due. Raises `ProcessDied` when nothing helped."""
        step = running.due(now)
        if step is None or step == "terminate":
            return
        if step == "remove":
            raise ProcessDied("it did not stop, and its sandbox was removed")
        try:
            await self.sandbox.interrupt(running.seq, step=step)
        except SandboxDied as error:
            raise ProcessDied(str(error)) from error
        except SandboxError as error:
            log.warning("A step was not taken", action=step, machine=self._machine, seq=running.seq, error=str(error))

    async def close(self, timeout_seconds: float) -> None:
        """Remove the sandbox. What cannot be removed is left to the next start's sweep of leftovers."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.sandbox.destroy()
        except (SandboxError, TimeoutError) as error:
            log.error("A sandbox could not be removed", action="destroy", machine=self._machine, error=str(error))
