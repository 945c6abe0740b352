"""How the process of an awake machine is served: what comes is run, what is due is saved, until it may sleep."""

from __future__ import annotations

import asyncio
import contextlib

from torpor_worker.bell import Bell
from torpor_worker.errors import Draining, SaveRefused
from torpor_worker.hearing import Hearing
from torpor_worker.inbox import Inbox, Wishes
from torpor_worker.interval_saves import IntervalSaves
from torpor_worker.ledger import EndedBy, Entry, Fenced
from torpor_worker.process import Process
from torpor_worker.services import Services
from torpor_worker.sleeping import Sleeping
from torpor_worker.suspicion import Suspicion

READY_AFTER_SECONDS = 0.05
"""How long the first instruction after a wake may take before the ledger is told that the machine is awake."""


class Serving:
    """Serves one process, one thing after the other."""

    def __init__(
        self,
        process: Process,
        hearing: Hearing,
        services: Services,
        inbox: Inbox,
        wishes: Wishes,
        bell: Bell,
        suspicion: Suspicion,
        woke: str,
    ) -> None:
        """`woke`: the event that the ledger is to have of this wake."""
        self._process = process
        self._hearing = hearing
        self._ledger = services.ledger
        self._config = services.config
        self._inbox = inbox
        self._wishes = wishes
        self._bell = bell
        self._woke = woke
        self._loop = asyncio.get_running_loop()
        self._saves = IntervalSaves(process, hearing, wishes, suspicion)
        self._sleeping = Sleeping(process, hearing, services, inbox, wishes, bell)
        self._ready = False
        self._looked = False
        self._proof_at = self._loop.time() + self._config.proof_seconds if suspicion.counted else None
        """When it has lived for long enough after a death; None: it has, or nobody doubts it."""

    async def serve(self) -> bool:
        """Run what comes, until it may sleep; whether it was put to sleep."""
        process = self._process
        while True:
            if self._inbox.draining:
                self._inbox.changes.fail(Draining("The server is stopping."))
                self._wishes.slept(Draining("The server is stopping."))
                return await self._sleeping.drain()
            await process.apply_settings()
            await self._prove_if_due()
            if process.running is not None and process.running.seq in self._inbox.unwanted:
                self._inbox.unwanted.remove(process.running.seq)
                process.running.stop(EndedBy.INTERRUPT, self._loop.time())
            await self._hearing.listen()
            self._saves.answer()
            if process.running is None:
                await self._saves.save_if_due()
            entry = await self._take()
            if entry is not None:
                self._looked = False
                self._wishes.slept(False)
                if not self._ready and process.woken_for is None and entry.is_awaited:
                    process.woken_for = entry.seq
                await process.send(entry, max(entry.attempt, 1), called_at=self._inbox.begun())
            elif self._inbox.changes:
                await self._make_changes()
            elif process.busy:
                await self._attend()
            elif not self._ready:
                await self._be_ready()
            elif await self._sleeping.sleep_if_due():
                return True
            elif not self._inbox.called and not self._inbox.draining:
                await process.escalate(self._loop.time())
                await self._bell.wait(self._next_at())

    async def _be_ready(self) -> None:
        """Let entries be started as they are accepted, once what the machine was woken for is answered, or takes long.

        Until then they only wait in the log, which costs nothing: the first answer after a wake is not held up.
        """
        if not self._ready:
            hold = self._process.hold
            await self._ledger.ready(hold)
            self._ready = True
            generation = None if hold.head is None else hold.head.generation
            await self._ledger.event(hold.machine, self._woke, generation=generation)

    async def _prove_if_due(self) -> None:
        """Forget earlier tries once the process, and this worker with it, has lived for a while after a death."""
        if self._proof_at is not None and self._loop.time() >= self._proof_at:
            self._proof_at = None
            await self._ledger.clear_tries(self._process.hold, deaths=False)

    async def _attend(self) -> None:
        """Follow the running instruction until it ends or there is something else to do, and save it if that is due."""
        process = self._process
        storing = process.saver.busy
        ending = process.running is not None and process.running.ended_by is not None
        middle = None if ending else process.saver.middle_due_at()
        ready_at = None if self._ready else self._loop.time() + READY_AFTER_SECONDS
        # Commands alone are no hindrance to a save between two instructions.
        between = self._saves.due_at if process.running is None else None
        until = min((at for at in (middle, between, ready_at, self._proof_at) if at is not None), default=None)
        await self._hearing.attend(
            lambda: (
                self._inbox.draining
                or self._inbox.called
                or bool(self._inbox.changes)
                or process.settings_changed
                or (process.running is None and self._wishes.to_save)
                or (not process.saver.busy and (storing or self._wishes.to_answer))
            ),
            until,
        )
        if not process.busy:
            return
        await self._be_ready()
        if middle is not None and self._loop.time() >= middle and not self._inbox.draining:
            # Nothing is lost if what killed an earlier process is in this save: those in which nothing ran stay.
            with contextlib.suppress(SaveRefused):
                await self._saves.save_in_the_middle()

    async def _take(self) -> Entry | None:
        """The next entry to send, if there is one: in order of position, and of an instruction only if none runs."""
        process = self._process
        if process.running is None and self._inbox.look_after:
            self._inbox.look, self._inbox.look_after = True, False
        delivered = self._inbox.take(process.position)
        if delivered is not None:
            if delivered.position == process.position + 1:
                return delivered
            self._inbox.look = True  # what lies between was started too, and word of it is on its way
        quiet_since = process.saver.facts.last_activity
        if not self._looked and self._loop.time() >= quiet_since + self._config.look_seconds:
            self._looked = self._inbox.look = True
        if not self._inbox.look:
            return None
        self._inbox.look = False
        entry = await process.next_started() or await self._ledger.start_next(
            process.hold, beside=process.running is not None
        )
        if entry is not None and entry.position is not None and entry.position > process.position + 1:
            entry = await process.next_started()  # a command was accepted and started in between: it comes before
        if entry is not None and (entry.position is None or entry.position <= process.position):
            entry = None  # the instruction that runs
        if entry is not None:
            self._inbox.look = True
        elif process.running is not None:
            self._inbox.look_after = True
        return entry

    async def _make_changes(self) -> None:
        """Put changes of files that are prepared into the log, and have them made."""
        process, changes = self._process, self._inbox.changes
        while (prepared := changes.next(process.attached.sandbox)) is not None:
            try:
                entry = await process.log_change(prepared)
            except Fenced:
                raise
            except Exception as error:  # of the ledger's
                changes.done(error)
                continue
            if entry is None:
                if await process.make_left():
                    continue
                self._inbox.look = True  # something was started that is to be sent before
                return
            is_given_up = prepared.logged.cancelled() and prepared.transfer.is_over
            changes.done(entry)  # in the log, it is true, whatever happens now
            if entry.position is not None:
                if is_given_up:  # while it was written down; the guest has forgotten it, and nobody was told of it
                    await self._ledger.undo_change(process.hold, entry.position)
                await process.attached.sandbox.apply_change(entry.position, prepared.transfer)

    def _next_at(self) -> float | None:
        """When there is something to do though nobody rings."""
        process = self._process
        due_at = process.due_at(self._loop.time())
        times = [process.flush_at, self._saves.due_at, self._proof_at, due_at, self._sleeping.due_at]
        if not self._looked:
            times.append(process.saver.facts.last_activity + self._config.look_seconds)
        return min((at for at in times if at is not None), default=None)
