"""How a process is let go without losing anything: pause, capture, commit, release, and only then kill."""

from __future__ import annotations

import asyncio

from torpor_worker.bell import Bell
from torpor_worker.errors import SaveRefused
from torpor_worker.hearing import Hearing
from torpor_worker.inbox import Inbox, Wishes
from torpor_worker.instruction import Running
from torpor_worker.ledger import Fenced
from torpor_worker.process import Process
from torpor_worker.sandbox import SandboxDied, SandboxError
from torpor_worker.services import Services


class Sleeping:
    """Puts one process to sleep. Until the ledger has released the machine, whatever happens, it goes on as before."""

    def __init__(
        self, process: Process, hearing: Hearing, services: Services, inbox: Inbox, wishes: Wishes, bell: Bell
    ) -> None:
        self._process = process
        self._hearing = hearing
        self._ledger = services.ledger
        self._config = services.config
        self._inbox = inbox
        self._wishes = wishes
        self._bell = bell
        self._loop = asyncio.get_running_loop()
        self._failures = 0
        self._not_before = 0.0

    @property
    def due_at(self) -> float | None:
        """When it has been idle for long enough; None if it is to stay awake, or somebody works with its files."""
        idle_seconds = self._process.hold.idle_seconds
        if idle_seconds is None or self._inbox.users:
            return None
        return max(self._process.saver.facts.last_activity + idle_seconds, self._not_before)

    async def sleep_if_due(self) -> bool:
        """Fall asleep if it was idle for long enough, or somebody wishes it; whether it did."""
        if self._inbox.users:
            self._wishes.slept(False)
            return False
        due_at = self.due_at
        if not (self._wishes.to_sleep or (due_at is not None and self._loop.time() >= due_at)):
            return False
        try:
            slept = await self.fall_asleep()
        except SaveRefused as refused:
            self._failures += 1
            self._not_before = self._loop.time() + self._config.backoff_seconds(self._failures)
            self._wishes.slept(refused)
            return False
        self._failures = 0
        if not slept:
            self._not_before = self._loop.time() + self._config.retry_seconds
            self._wishes.slept(False)
        return slept

    async def fall_asleep(self, *, draining: bool = False) -> bool:
        """Whether the machine was released, so that the process is to be removed; a call in between prevents it.

        While draining it works in the middle of an instruction too. Raises `SaveRefused`.
        """
        process, saver = self._process, self._process.saver
        while saver.busy and not self._called(draining):
            if process.busy:
                await self._hearing.attend(lambda: not saver.busy)
            else:
                await self._hearing.listen()
                if saver.busy:
                    await self._bell.wait(process.flush_at)
        offset = await self._hearing.hear_out()
        if self._called(draining):
            return False
        with process.hold_ups.one():
            return await self._pause_and_save(offset, draining=draining)

    async def _pause_and_save(self, offset: int, *, draining: bool) -> bool:
        process, saver = self._process, self._process.saver
        state = await process.ping()
        running, head = process.running, saver.head
        at_rest = running is None and not process.commands.any_live
        as_saved = at_rest and saver.clean and head is not None and head.position == process.position
        if as_saved and not state.background:
            return not self._called(draining) and await self._release(draining)
        # From the ping on nothing is acknowledged: what the guest says now is in the image, and said again on waking.
        await process.remember_clock(state)
        try:
            await self._pause(running)
            await saver.capture(process.hold, process.attached, process.point(offset, running))
            while saver.busy and not self._called(draining):
                await self._bell.wait()
            if saver.fenced:
                raise Fenced
            if not saver.busy and saver.failure is not None:
                raise SaveRefused(saver.failure)
        except SaveRefused:
            await self._resume(running)
            raise
        # If the answer to a release is lost, the process must go: the head has everything, and may be another's by now.
        if not saver.busy and not self._called(draining) and await self._release(draining):
            return True
        await self._resume(running)
        return False

    async def drain(self) -> bool:
        """Save what is there, also in the middle of an instruction, until it is released.

        All that was started must be in the capture: what was not sent yet is sent first. What is being ended is ended
        first.
        """
        process = self._process
        failures = 0
        while True:
            await self._hearing.listen()
            self._inbox.clear()
            if (entry := await process.next_started()) is not None:
                await process.send(entry, max(entry.attempt, 1))
                continue
            if process.is_being_ended:
                await self._hearing.attend(lambda: not process.is_being_ended)
                continue
            try:
                if await self.fall_asleep(draining=True):
                    return True
                pause_seconds = 0.01
            except SaveRefused:
                failures += 1
                pause_seconds = self._config.backoff_seconds(failures)
            await self._hearing.attend(lambda: False, self._loop.time() + pause_seconds)
            if not process.busy:
                await asyncio.sleep(pause_seconds)

    def _called(self, draining: bool) -> bool:
        return (self._inbox.called or self._inbox.users > 0) and not draining

    async def _pause(self, running: Running | None) -> None:
        try:
            await self._process.attached.sandbox.pause()
        except SandboxDied:
            raise
        except SandboxError as error:
            raise await self._process.saver.refuse(self._process.hold, error) from error
        self._process.stop_clocks(running)

    async def _resume(self, running: Running | None) -> None:
        await self._process.attached.sandbox.resume()
        self._process.start_clocks(running)

    async def _release(self, draining: bool) -> bool:
        hold, head = self._process.hold, self._process.saver.head
        if head is None:
            raise RuntimeError("a machine without a head cannot be released")
        self._inbox.stays.clear()
        if await self._ledger.release(hold, head.generation, draining=draining):
            action = "drained" if draining else "slept"
            await self._ledger.event(hold.machine, action, generation=head.generation)
            return True
        self._inbox.stays.set()
        # Something lies behind the head that nobody told us of.
        self._inbox.look = True
        return False
