"""One machine that is held: a task that wakes it, has it served until it sleeps, and recovers it when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Literal

import structlog

from torpor_worker.bell import Bell
from torpor_worker.bodies import Body
from torpor_worker.changing import Prepared
from torpor_worker.entering import Entering
from torpor_worker.errors import CannotWake, Draining, FellAsleep, MachineGone, ProcessDied
from torpor_worker.files import Change, FileTransfer
from torpor_worker.hearing import Hearing
from torpor_worker.inbox import Inbox, Wishes
from torpor_worker.ledger import EndedBy, Entry, Fenced, Hold
from torpor_worker.process import Process
from torpor_worker.sandbox import Completion, SandboxError
from torpor_worker.services import Services
from torpor_worker.serving import Serving
from torpor_worker.survivors import Survivor
from torpor_worker.wake_timer import WakeTimer
from torpor_worker.waking import Awake, Waking

log = structlog.get_logger(__name__)

Phase = Literal["awake", "waking"]

READS_LIMIT = 16
"""Downloads at once: their clients may be slow."""
CHANGES_LIMIT = 4
"""Uploads at once: what they bring is on this host already."""


class Machine:
    """Everything that happens to one machine happens in its `run` task, one thing after the other.

    Other tasks leave word (an entry, a wish) and ring the bell. Nothing here is true because this object believes it:
    each step is a conditional change of the ledger, and `Fenced` from any of them ends it.
    """

    def __init__(self, name: str, services: Services, *, recovering: bool, survivor: Survivor | None = None) -> None:
        """`recovering`: its last process ended without a clean sleep, or is the `survivor` that is to be taken over."""
        self.name = name
        self.phase: Phase | None = "waking"
        """None once it was let go."""
        self._services = services
        self._ledger = services.ledger
        self._config = services.config
        self._loop = asyncio.get_running_loop()
        self._bell = Bell()
        self._inbox = Inbox(self._bell)
        self._wishes = Wishes(self._bell)
        self._waking = Waking(name, services, self._bell)
        self._recovering = recovering
        self.survivor = survivor
        """A process that has outlived its worker, until it is taken over or removed."""
        self._lived = False
        """Whether a process of the present hold was served."""
        self._sent: int | None = None
        """The highest position that a process of the present hold was sent before it died."""
        self._settings_changed = False
        """Since the present hold was acquired."""
        self._process: Process | None = None
        self.read_slots = asyncio.Semaphore(READS_LIMIT)
        self.change_slots = asyncio.Semaphore(CHANGES_LIMIT)
        self._entered = asyncio.Event()
        """Set while its process has all that its log has."""

    # What other tasks call.

    def deliver(self, entry: Entry | None) -> None:
        """An entry was accepted: a started one to run now, or None to look into the log."""
        self._inbox.deliver(entry)

    def interrupt(self, seq: int | None, *, coming: bool = False) -> int | None:
        """Begin to end what runs, if it is `seq` (None: whatever it is); its seq, None if nothing was done.

        `coming`: `seq` was accepted, and is ended as soon as it begins if it has not yet.
        """
        running = None if self._process is None else self._process.running
        if seq is not None and coming and seq > (-1 if self._process is None else self._process.instructions.last_seq):
            self._inbox.unwanted.add(seq)
            return seq
        if running is None or (seq is not None and running.seq != seq):
            return None
        running.stop(EndedBy.INTERRUPT, self._loop.time())
        self._bell.ring()
        return running.seq

    @property
    def unwanted(self) -> set[int]:
        """Seqs that are to be interrupted as soon as they begin."""
        return self._inbox.unwanted

    async def awake(self) -> None:
        """Wait until it is awake. Raises `CannotWake`, `MachineGone`, `Draining`, `FellAsleep`."""
        self._check_held()
        if self.phase != "awake":
            await self._wishes.awake()

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[Process]:
        """Its process, for work with its files: while this lasts it falls asleep only if the worker stops.

        Raises what `awake` raises.
        """
        await self.awake()
        process = self._process
        self._inbox.users += 1
        try:
            await self._entered.wait()
            await self._inbox.stays.wait()
            if process is None or self._process is not process or self._inbox.draining:
                raise FellAsleep
            yield process
        finally:
            self._inbox.users -= 1
            if process is not None:
                process.saver.facts.last_activity = self._loop.time()
            self._bell.ring()

    async def log(self, process: Process, change: Change, body: Body | None, transfer: FileTransfer) -> Entry | None:
        """Put a change that is prepared into the log, and have it made; None if its transfer has ended before.

        Raises `FellAsleep` if the process ended before: nothing was changed.
        """
        logged: asyncio.Future[Entry | None] = self._loop.create_future()
        self._check_held()
        self._inbox.changes.add(Prepared(change, body, process.attached.sandbox, transfer, logged))
        self._bell.ring()
        return await logged

    async def sleep(self) -> bool:
        """Fall asleep as soon as it may; False if it has something to do. Raises `SaveRefused`, `FellAsleep`."""
        self._check_held()
        if self._inbox.called or self._inbox.users or (self._process is not None and self._process.busy):
            return False
        return await self._wishes.asleep()

    async def sync(self) -> None:
        """Save all that has finished, after the instruction that runs. Raises `SaveRefused`, `FellAsleep`."""
        self._check_held()
        await self._wishes.saved()

    async def crash(self) -> bool:
        """Kill its process as an accident would; False if it has none."""
        if self.phase != "awake" or self._process is None:
            return False
        await self._process.attached.sandbox.crash()
        return True

    async def complete(self, code: str, cursor: int) -> Completion:
        """What could follow at a cursor, if it is awake."""
        if self.phase != "awake" or self._process is None:
            raise FellAsleep
        return await self._process.attached.sandbox.complete(code, cursor)

    def change_settings(self) -> None:
        """Its settings or tags were changed in the ledger."""
        self._settings_changed = True
        if self._process is not None:
            self._process.settings_changed = True
        self._bell.ring()

    def drain(self) -> bool:
        """Save and let go as soon as possible; False if it is not awake, so that there is nothing to save."""
        self._inbox.drain()
        return self.phase == "awake"

    @property
    def wanted(self) -> bool:
        """Whether somebody wants it awake."""
        return self._inbox.called or self._wishes.to_wake

    @property
    def idle_since(self) -> float | None:
        """Since when it has nothing to do, in the loop's time; None if it has, or must stay awake."""
        process = self._process
        if self.phase != "awake" or process is None or process.busy:
            return None
        if self._inbox.called or self._inbox.users:
            return None
        return None if process.hold.idle_seconds is None else process.saver.facts.last_activity

    @property
    def memory_bytes(self) -> int:
        """What its sandbox uses."""
        attached = self._waking.attached if self._process is None else self._process.attached
        return 0 if attached is None else attached.sandbox.memory_bytes()

    @property
    def keys_in_use(self) -> list[str]:
        """Keys of objects that it reads, or builds on."""
        head = None if self._process is None else self._process.saver.head
        needs = [snapshot for snapshot in (self._waking.needs, head) if snapshot is not None]
        return [key for snapshot in needs for key in (snapshot.manifest_key, *snapshot.packs)]

    def _check_held(self) -> None:
        if self.phase is None:
            raise FellAsleep

    # Its life.

    async def run(self) -> None:
        """Live until it is asleep, parked, deleted or drained."""
        failures = 0
        slept = False
        reason: Exception = FellAsleep()
        try:
            while not slept:
                try:
                    slept = await self._live()
                except Fenced:
                    log.info("A machine changed hands or was deleted", action="fenced", machine=self.name)
                    reason = MachineGone("The machine was deleted, or moved to another worker.")
                    return
                except MachineGone as gone:
                    reason = gone
                    return
                except CannotWake as refused:
                    log.warning("A machine could not be woken", action="wake", machine=self.name, error=str(refused))
                    self._wishes.end(refused)
                except Exception:
                    log.exception("A machine's task failed; it is recovered from the ledger", machine=self.name)
                    self._wishes.end(CannotWake("The machine's worker failed; it is tried again."))
                finally:
                    await self._let_go()
                if slept or self._inbox.draining:
                    return
                failures = 1 if self._lived else failures + 1
                self._recovering = self._recovering or self._lived
                # A call may find what was missing there again: it does not wait for the next try.
                await self._bell.wait(self._loop.time() + self._config.backoff_seconds(failures))
        finally:
            self.phase = None
            self._forget_changes()
            if self._inbox.draining:
                reason = Draining("The server is stopping.")
            self._wishes.end(reason, slept=slept)

    async def _live(self) -> bool:
        """One hold on the machine, from acquiring it to letting go; whether it was put to sleep."""
        self._lived = False
        self._sent = None
        self._settings_changed = False
        timer = WakeTimer()
        hold = await self._ledger.acquire(self.name)
        if hold is None:
            await self.dismiss()
            self._inbox.clear()
            raise MachineGone("The machine is parked, deleted, or held by another worker.")
        awake = await self._take_over(hold, timer)
        if awake is None and self._recovering and not self.wanted and await self._has_nothing_to_recover(hold):
            return True
        while True:
            if awake is None:
                try:
                    awake = await self._waking.bring_back(hold, timer, recovering=self._recovering, sent=self._sent)
                except asyncio.CancelledError:
                    await self._give_back(hold)
                    raise
            self._process = process = Process(awake, self._services, self._bell)
            hearing = Hearing(process, self._services, self._bell, self._waking.suspicion, awake.timer)
            process.settings_changed = self._settings_changed
            try:
                return await self._serve(process, hearing, awake)
            except (ProcessDied, SandboxError) as death:
                hold = await self._bury(process, hearing, str(death))
                awake = None
                timer = WakeTimer()
                if self._inbox.draining:
                    return False

    async def _take_over(self, hold: Hold, timer: WakeTimer) -> Awake | None:
        """Go on with the process that has outlived its worker, if there is one and it can be."""
        survivor, self.survivor = self.survivor, None
        if survivor is None:
            return None
        awake = await self._waking.take_over(hold, survivor, timer)
        if awake is not None:
            self._recovering = False
            self._sent = awake.position
        return awake

    async def dismiss(self) -> None:
        """Remove the process that was to be taken over, if it is still there."""
        survivor, self.survivor = self.survivor, None
        if survivor is not None:
            await self._services.host.dismiss(survivor)

    async def _give_back(self, hold: Hold) -> None:
        """A stop came while it was waking: it sleeps on as if it had not been touched, if it was asleep."""
        if self._inbox.draining and not self._recovering and hold.head is not None:
            with contextlib.suppress(Exception):
                await self._ledger.release(hold, hold.head.generation, draining=True)

    async def _has_nothing_to_recover(self, hold: Hold) -> bool:
        """Let a machine sleep on that was taken over, if its head has all that its log has."""
        head = hold.head
        if head is None or not head.quiescent or hold.idle_seconds is None:
            return False
        message = (
            f"The machine was left at its save of generation {head.generation}, which has all that instructions did; "
        )
        await self._ledger.notice(hold, "restored", message + "what ran in the background since then is lost.", [])
        if not await self._ledger.release(hold, head.generation):
            await self._ledger.clear_notices(hold, "restored")
            return False
        await self._ledger.event(self.name, "left_asleep", generation=head.generation)
        return True

    async def _serve(self, process: Process, hearing: Hearing, awake: Awake) -> bool:
        """Serve a process that was brought back, with what it left unfinished first; whether it was put to sleep."""
        recovering, self._recovering = self._recovering, False
        self._lived = True
        self._entered.clear()
        woke = "adopted" if awake.adoption is not None else "recovered" if recovering else "woke"
        suspicion = self._waking.suspicion
        serving = Serving(process, hearing, self._services, self._inbox, self._wishes, self._bell, suspicion, woke)
        self._inbox.clear()  # a recovery may have given what was started another position, or none
        self._inbox.look = True
        self.phase = "awake"
        self._wishes.woke()
        await Entering(process, hearing, self._ledger, self._sent).enter(awake, recovering=recovering)
        self._entered.set()
        return await serving.serve()

    async def _bury(self, process: Process, hearing: Hearing, reason: str) -> Hold:
        """The process died: answer what ran, remove what is left, and learn from it. The hold to go on with."""
        self.phase = "waking"
        self._wishes.save_again()
        seq = await hearing.bury(reason)
        self._process = None
        self._forget_changes()
        self._recovering = True
        self._sent = process.position
        if seq is not None:
            self._waking.innocent.update(process.commands.background)
        log.warning("A machine's process died", action="died", machine=self.name, seq=seq, reason=reason)
        await self._ledger.event(self.name, "died", reason=reason, seq=seq)
        hold = dataclasses.replace(process.hold, head=process.saver.head)
        return await self._waking.learn(hold, reason, running=seq is not None)

    def _forget_changes(self) -> None:
        """The process is gone: whoever has prepared a change in it, or waits for it, begins anew."""
        self._inbox.changes.fail(FellAsleep())
        self._entered.set()
        self._inbox.stays.set()

    async def _let_go(self) -> None:
        """Remove the process, whatever state it is in; a cancellation waits until that is done."""
        self.phase = "waking"
        process, self._process = self._process, None
        self._forget_changes()
        removing = self._loop.create_task(self._remove(process), name=f"remove:{self.name}")
        cancelled: asyncio.CancelledError | None = None
        while not removing.done():
            try:
                await asyncio.wait([removing])
            except asyncio.CancelledError as error:
                cancelled = error
        removing.result()
        if cancelled is not None:
            raise cancelled

    async def _remove(self, process: Process | None) -> None:
        if process is not None:
            await process.remove()
        await self._waking.remove()
