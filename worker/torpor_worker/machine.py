"""One machine that is held: a task that wakes it, runs its instructions, saves it and lets it sleep."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator
from typing import Literal

import structlog

from torpor_worker.bell import Bell
from torpor_worker.bodies import Body
from torpor_worker.changing import Prepared
from torpor_worker.errors import CannotWake, Draining, FellAsleep, MachineGone, ProcessDied, SaveRefused
from torpor_worker.files import Change, FileTransfer
from torpor_worker.forgoing import named
from torpor_worker.inbox import Inbox, Wishes
from torpor_worker.ledger import EndedBy, Entry, EntryKind, Fenced, Hold
from torpor_worker.process import Process
from torpor_worker.replaying import FROM_BEGINNING, FROM_MIDDLE
from torpor_worker.sandbox import Completion, SandboxError
from torpor_worker.services import Services
from torpor_worker.sleeping import Sleeping
from torpor_worker.survivors import Survivor
from torpor_worker.wake_timer import WakeTimer
from torpor_worker.waking import Awake, Waking

log = structlog.get_logger(__name__)

Phase = Literal["awake", "waking"]

READS_LIMIT = 16
"""Downloads at once: their clients may be slow."""
CHANGES_LIMIT = 4
"""Uploads at once: what they bring is on this host already."""
READY_AFTER_SECONDS = 0.05
"""How long the first instruction after a wake may take before the ledger is told that the machine is awake."""


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
        self.unwanted: set[int] = set()
        """Seqs that are to be interrupted as soon as they begin."""
        self._ready = False
        self._settings_changed = False
        """Since the present hold was acquired."""
        self._proof_at: float | None = None
        """When it has lived for long enough after a death; None: it has, or nobody doubts it."""
        self._woke = "woke"
        self._process: Process | None = None
        self._looked = False
        self.read_slots = asyncio.Semaphore(READS_LIMIT)
        self.change_slots = asyncio.Semaphore(CHANGES_LIMIT)
        self._entered = asyncio.Event()
        """Set while its process has all that its log has."""
        self._sleep_failures = 0
        self._sleep_not_before = 0.0

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
            self.unwanted.add(seq)
            return seq
        if running is None or (seq is not None and running.seq != seq):
            return None
        running.stop(EndedBy.INTERRUPT, self._loop.time())
        self._bell.ring()
        return running.seq

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
            process = Process(awake, self._services, self._bell, self._waking.suspicion)
            self._process = process
            process.settings_changed = self._settings_changed
            try:
                await self._enter(process, awake)
                return await self._serve(process)
            except (ProcessDied, SandboxError) as death:
                hold = await self._bury(process, str(death))
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

    async def _enter(self, process: Process, awake: Awake) -> None:
        """Begin to serve a process that was brought back, with what it left unfinished first."""
        hold, recovering = awake.hold, self._recovering
        self._recovering = False
        self._lived = True
        self._looked = False
        self._ready = False
        self._entered.clear()
        self._woke = "adopted" if awake.adoption is not None else "recovered" if recovering else "woke"
        self._proof_at = None
        if self._waking.suspicion.counted:
            self._proof_at = self._loop.time() + self._config.proof_seconds
        self._inbox.clear()  # a recovery may have given what was started another position, or none
        self._inbox.look = True
        self.phase = "awake"
        self._wishes.woke()
        ran_again = dict(awake.ran_again)
        if awake.going_on is not None:
            await process.go_on_with(awake.going_on, recovering=recovering)
            if recovering and awake.going_on.seq is not None:
                ran_again[awake.going_on.seq] = FROM_MIDDLE
        for entry in awake.rest:
            await self._send_again(process, entry, ran_again)
        if ran_again:
            await self._tell_ran_again(hold, ran_again)
        if not awake.clean:
            await self._make_left(process)
        await process.remember()
        self._entered.set()

    async def _make_left(self, process: Process) -> bool:
        """Make changes of files that are in the log next behind what was sent; whether there were any."""
        behind = await self._ledger.behind(process.hold, process.position)
        left = list(itertools.takewhile(lambda entry: entry.kind is EntryKind.FILE, behind))
        for entry in left:
            await process.send(entry, entry.attempt)
        return bool(left)

    async def _make_changes(self, process: Process) -> None:
        """Put changes of files that are prepared into the log, and have them made."""
        changes = self._inbox.changes
        while (prepared := changes.next(process.attached.sandbox)) is not None:
            try:
                entry = await process.log_change(prepared)
            except Fenced:
                raise
            except Exception as error:  # of the ledger's
                changes.done(error)
                continue
            if entry is None:
                if await self._make_left(process):
                    continue
                self._inbox.look = True  # something was started that is to be sent before
                return
            is_given_up = prepared.logged.cancelled() and prepared.transfer.is_over
            changes.done(entry)  # in the log, it is true, whatever happens now
            if entry.position is not None:
                if is_given_up:  # while it was written down; the guest has forgotten it, and nobody was told of it
                    await self._ledger.undo_change(process.hold, entry.position)
                await process.attached.sandbox.apply_change(entry.position, prepared.transfer)

    async def _send_again(self, process: Process, entry: Entry, ran_again: dict[int, str]) -> None:
        """Send a started entry to a process that was brought back, in its turn beside what runs there already."""
        await process.attend(lambda: not process.commands.awaits(entry.position))
        if entry.seq is None:
            await process.send(entry, entry.attempt)
        elif entry.result is not None:
            await process.send_once_more(entry)
        elif self._never_sent(entry):
            await process.send(entry, entry.attempt)
        else:
            attempt = await self._ledger.count_attempt(process.hold, entry.seq, 0)
            ran_again[entry.seq] = FROM_BEGINNING
            await process.send(entry, attempt)

    def _never_sent(self, entry: Entry) -> bool:
        """Whether it was started while its machine's process was dead already, so that no attempt was made at it."""
        return self._sent is not None and entry.position is not None and entry.position > self._sent

    async def _tell_ran_again(self, hold: Hold, where: dict[int, str]) -> None:
        """Say what was running when the process ended, and runs again."""
        told = []
        for how in dict.fromkeys(where.values()):
            seqs = [seq for seq in sorted(where) if where[seq] == how]
            told.append(f"{_started(seqs)} when the machine's process ended, and {_runs(seqs)} again {how}.")
        message = " ".join(told)
        await self._ledger.notice(hold, "ran_again", message, sorted(where))

    async def _bury(self, process: Process, reason: str) -> Hold:
        """The process died: answer what ran, remove what is left, and learn from it. The hold to go on with."""
        self.phase = "waking"
        self._wishes.save_again()
        seq = await process.bury(reason)
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

    # Awake.

    async def _serve(self, process: Process) -> bool:
        """Run what comes, until it may sleep; whether it was put to sleep."""
        sleeping = Sleeping(process, self._ledger, self._config, self._inbox, self._bell)
        while True:
            if self._inbox.draining:
                self._inbox.changes.fail(Draining("The server is stopping."))
                self._wishes.slept(Draining("The server is stopping."))
                return await sleeping.drain()
            await process.apply_settings()
            await self._prove_if_due(process)
            if process.running is not None and process.running.seq in self.unwanted:
                self.unwanted.remove(process.running.seq)
                process.running.stop(EndedBy.INTERRUPT, self._loop.time())
            await process.listen()
            self._answer_syncs(process)
            if process.running is None:
                await self._save_if_due(process)
            entry = await self._take(process)
            if entry is not None:
                self._looked = False
                self._wishes.slept(False)
                if not self._ready and process.woken_for is None and entry.is_awaited:
                    process.woken_for = entry.seq
                await process.send(entry, max(entry.attempt, 1), called_at=self._inbox.begun())
            elif self._inbox.changes:
                await self._make_changes(process)
            elif process.busy:
                await self._attend(process)
            elif not self._ready:
                await self._be_ready(process)
            elif await self._sleep_if_due(process, sleeping):
                return True
            elif not self._inbox.called and not self._inbox.draining:
                await process.escalate(self._loop.time())
                await self._bell.wait(self._next_at(process))

    async def _be_ready(self, process: Process) -> None:
        """Let entries be started as they are accepted, once what the machine was woken for is answered, or takes long.

        Until then they only wait in the log, which costs nothing: the first answer after a wake is not held up.
        """
        if not self._ready:
            await self._ledger.ready(process.hold)
            self._ready = True
            head = process.hold.head
            await self._ledger.event(self.name, self._woke, generation=None if head is None else head.generation)

    async def _prove_if_due(self, process: Process) -> None:
        """Forget earlier tries once the process, and this worker with it, has lived for a while after a death."""
        if self._proof_at is not None and self._loop.time() >= self._proof_at:
            self._proof_at = None
            await self._ledger.clear_tries(process.hold, deaths=False)

    async def _attend(self, process: Process) -> None:
        """Follow the running instruction until it ends or there is something else to do, and save it if that is due."""
        storing = process.saver.busy
        ending = process.running is not None and process.running.ended_by is not None
        middle = None if ending else process.saver.middle_due_at()
        ready_at = None if self._ready else self._loop.time() + READY_AFTER_SECONDS
        # Commands alone are no hindrance to a save between two instructions.
        between = self._save_due_at(process) if process.running is None else None
        until = min((at for at in (middle, between, ready_at, self._proof_at) if at is not None), default=None)
        await process.attend(
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
        await self._be_ready(process)
        if middle is not None and self._loop.time() >= middle and not self._inbox.draining:
            # Nothing is lost if what killed an earlier process is in this save: those in which nothing ran stay.
            with contextlib.suppress(SaveRefused):
                await process.save_in_the_middle()

    async def _take(self, process: Process) -> Entry | None:
        """The next entry to send, if there is one: in order of position, and of an instruction only if none runs."""
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

    def _next_at(self, process: Process) -> float | None:
        """When there is something to do though nobody rings."""
        idle_seconds = process.hold.idle_seconds
        last_activity = process.saver.facts.last_activity
        due_at = process.due_at(self._loop.time())
        times = [process.flush_at, self._save_due_at(process), self._proof_at, due_at]
        if not self._looked:
            times.append(last_activity + self._config.look_seconds)
        if idle_seconds is not None and not self._inbox.users:
            times.append(max(last_activity + idle_seconds, self._sleep_not_before))
        return min((at for at in times if at is not None), default=None)

    def _save_due_at(self, process: Process) -> float | None:
        return None if self._waking.suspicion.suspicious else process.saver.due_at()

    async def _save_if_due(self, process: Process) -> None:
        """Save in this gap between two instructions, if it is time, or asked for, or what ran must not run again."""
        due = self._save_due_at(process)
        if not (process.capture_first or self._wishes.to_save or (due is not None and self._loop.time() >= due)):
            return
        self._wishes.saving()
        try:
            captured = await process.save(needed=process.capture_first)
        except SaveRefused as refused:
            self._wishes.save_ended(refused)
        else:
            if not captured and not process.saver.busy:
                self._wishes.save_ended(None)

    def _answer_syncs(self, process: Process) -> None:
        if not process.saver.busy:
            failure = process.saver.failure
            self._wishes.save_ended(None if failure is None else SaveRefused(failure))

    async def _sleep_if_due(self, process: Process, sleeping: Sleeping) -> bool:
        """Fall asleep if it was idle for long enough, or somebody wishes it; whether it did."""
        if self._inbox.users:
            self._wishes.slept(False)
            return False
        idle_seconds = process.hold.idle_seconds
        due = idle_seconds is not None and self._loop.time() >= max(
            process.saver.facts.last_activity + idle_seconds, self._sleep_not_before
        )
        if not (self._wishes.to_sleep or due):
            return False
        try:
            slept = await sleeping.fall_asleep()
        except SaveRefused as refused:
            self._sleep_failures += 1
            self._sleep_not_before = self._loop.time() + self._config.backoff_seconds(self._sleep_failures)
            self._wishes.slept(refused)
            return False
        self._sleep_failures = 0
        if not slept:
            self._sleep_not_before = self._loop.time() + self._config.retry_seconds
            self._wishes.slept(False)
        return slept


def _started(seqs: list[int]) -> str:
    some = named(seqs)
    return f"{some[:1].upper()}{some[1:]} {'was' if len(seqs) == 1 else 'were'} started"


def _runs(seqs: list[int]) -> str:
    return "runs" if len(seqs) == 1 else "run"
