"""How a process is heard: all that it says is made durable before anybody else hears of it, and then acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from torpor_worker.bell import Bell
from torpor_worker.ends import Ends
from torpor_worker.errors import ProcessDied
from torpor_worker.ledger import Fenced
from torpor_worker.process import Process
from torpor_worker.sandbox import (
    CommandEnded,
    CommandOutput,
    Event,
    GuestNotice,
    Output,
    PackagesWanted,
    Result,
    SandboxError,
)
from torpor_worker.services import Services
from torpor_worker.suspicion import Suspicion
from torpor_worker.wake_timer import WakeTimer


class Hearing:
    """Hears one process, to its last words. Any method may raise what the process's methods raise."""

    def __init__(
        self, process: Process, services: Services, bell: Bell, suspicion: Suspicion, timer: WakeTimer
    ) -> None:
        """`timer`: of the wake that brought the process back."""
        self._process = process
        self._attached = process.attached
        self._ends = Ends(process, services, bell, suspicion, timer)
        self._services = services
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self._unacknowledged = False

    async def attend(self, stop: Callable[[], bool], until: float | None = None) -> None:
        """Follow what runs to its end, until somebody rings and `stop` is true, or to `until`."""
        process = self._process
        while process.busy:
            await self.listen()
            if not process.busy or stop():
                return
            now = self._loop.time()
            if until is not None and now >= until:
                return
            await process.escalate(now)
            times = (process.due_at(now), process.flush_at, until)
            await self._bell.wait(min((at for at in times if at is not None), default=None))

    async def listen(self) -> None:
        """Hear all that waits, and make it durable when it is time."""
        process = self._process
        await self._ends.finish_commands()  # one that the guest cannot run is over as it is sent
        while (event := self._attached.next()) is not None:
            await self._hear(event)
        now = self._loop.time()
        if process.instructions.is_flush_due(now) or process.commands.is_flush_due(now):
            await process.flush()
        if self._unacknowledged:
            await self._acknowledge()
        if process.saver.fenced:
            raise Fenced

    async def hear_out(self) -> int:
        """Make durable and acknowledge all that was said; how many bytes the running instruction has said by then.

        Ends because the guest says no more than its window holds until it is acknowledged.
        """
        process = self._process
        while True:
            while (event := self._attached.next()) is not None:
                await self._hear(event)
            await process.flush()
            offset = await process.instructions.output_offset(process.hold)
            if await self._attached.acknowledge():
                self._unacknowledged = False
                return offset

    async def _acknowledge(self) -> None:
        """Let the guest forget what is durable, if all of it is."""
        if not self._process.instructions.unflushed and not self._process.commands.unflushed:
            self._unacknowledged = not await self._attached.acknowledge()

    async def _hear(self, event: Event) -> None:
        process, running = self._process, self._process.running
        self._unacknowledged = True
        if isinstance(event, Result):
            if running is not None and event.seq == running.seq:
                await self._ends.finish(event, running)
                await self._acknowledge()
        elif isinstance(event, CommandOutput | CommandEnded):
            await process.commands.hear(process.hold, event)
            await self._ends.finish_commands()
        elif isinstance(event, Output):
            await process.instructions.hear(process.hold, event)
        elif isinstance(event, PackagesWanted):
            if self._services.handing_in is not None:
                self._services.handing_in.wanted(process.hold, self._attached.sandbox, event)
        elif isinstance(event, GuestNotice):
            # The guest mends what an instruction broke when that has been answered.
            last_seq = process.instructions.last_seq
            seqs = [last_seq] if last_seq >= 0 else []
            await self._services.ledger.notice(process.hold, event.code, event.message, seqs)

    async def bury(self, reason: str) -> int | None:
        """It is gone: answer what ran, which is undone, and remove what is left. The seq of one that was answered.

        A command in the background is not answered: it goes on from where it was saved, or runs again.
        """
        process, commands = self._process, self._process.commands
        self._ends.dead = True
        await self._hear_last_words()
        running = process.running
        await commands.flush(process.hold)
        records = None if running is None else process.instructions.last_records(running.seq)
        if records is None:
            await process.instructions.flush(process.hold)
        ended = [*([running] if running is not None else []), *commands.foreground]
        ended += [over.running for over in commands.over if over.entry.is_awaited]
        for each in ended:
            await self._ends.answer_dead(each, reason, records or [] if each is running else [])
        await self._attached.close(self._services.config.destroy_seconds)
        # A capture on its way may be the newest that does not contain what killed the process.
        await process.saver.settle()
        return ended[0].seq if ended else None

    async def _hear_last_words(self) -> None:
        """Take what it had said before it ended; the result of what ran may be among it."""
        while True:
            try:
                event = self._attached.next()
                if event is None:
                    return
                await self._hear(event)
            except ProcessDied:
                return
            except SandboxError:
                continue  # what was heard is durable; only the acknowledgement reached nobody
