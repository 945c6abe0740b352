"""One machine that is held: a task that wakes it, runs its instructions, saves it and lets it sleep."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from torpor_worker import results
from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.errors import CannotWake, Draining, FellAsleep, MachineGone, ProcessDied, SaveRefused
from torpor_worker.instruction import Running
from torpor_worker.ledger import EndedBy, Entry, EntryKind, Fenced, Hold
from torpor_worker.output import OutputBatch
from torpor_worker.sandbox import Event, GuestNotice, GuestState, Output, Result, SandboxDied, SandboxError
from torpor_worker.saving import Point, Saver
from torpor_worker.services import Services
from torpor_worker.waking import Awake, Waking

log = structlog.get_logger(__name__)

Phase = Literal["awake", "waking"]


@dataclass(slots=True)
class _Sync:
    """Somebody who waits for a save."""

    done: asyncio.Future[None]
    captured: bool = False


class Machine:
    """Everything that happens to one machine happens in its `run` task, one thing after the other.

    Other tasks leave word (an entry, a wish) and ring the bell. Nothing here is true because this object believes it:
    each step is a conditional change of the ledger, and `Fenced` from any of them ends it.
    """

    def __init__(self, name: str, services: Services, *, recovering: bool) -> None:
        """`recovering`: its last process ended without a clean sleep."""
        self.name = name
        self.phase: Phase | None = "waking"
        """None once it was let go."""
        self._services = services
        self._ledger = services.ledger
        self._config = services.config
        self._loop = asyncio.get_running_loop()
        self._bell = Bell()
        self._waking = Waking(name, services, self._bell)
        self._saver = Saver(name, services, self._bell)
        self._recovering = recovering
        self._entries: deque[Entry] = deque()
        self._look = False
        self._draining = False
        self._wakers: list[asyncio.Future[None]] = []
        self._sleepers: list[asyncio.Future[bool]] = []
        self._syncs: list[_Sync] = []
        self._hold: Hold | None = None
        self._attached: Attached | None = None
        self._running: Running | None = None
        self._position = -1
        self._last_run: tuple[int, int] | None = None
        self._batch = OutputBatch()
        self._unacknowledged = False
        self._capture_first = False
        self._looked = False
        self._lived = False
        self._sleep_failures = 0
        self._sleep_not_before = 0.0

    # What other tasks call.

    def deliver(self, entry: Entry | None) -> None:
        """An entry was accepted: a started one to run now, or None to look into the log."""
        if entry is not None and entry.position is not None:
            self._entries.append(entry)
        else:
            self._look = True
        self._bell.ring()

    def interrupt(self, seq: int | None) -> int | None:
        """Begin to end what runs, if it is `seq` (None: whatever it is); its seq, None if nothing was done."""
        running = self._running
        if running is None or (seq is not None and running.seq != seq):
            return None
        running.stop(EndedBy.INTERRUPT, self._loop.time())
        self._bell.ring()
        return running.seq

    async def awake(self) -> None:
        """Wait until it is awake. Raises `CannotWake`, `MachineGone`, `Draining`."""
        if self.phase == "awake":
            return
        if self.phase is None:
            raise FellAsleep
        waker: asyncio.Future[None] = self._loop.create_future()
        self._wakers.append(waker)
        await waker

    async def sleep(self) -> bool:
        """Fall asleep as soon as it may; False if it has something to do. Raises `SaveRefused`."""
        if self._running is not None or self._called:
            return False
        if self.phase is None:
            raise FellAsleep
        sleeper: asyncio.Future[bool] = self._loop.create_future()
        self._sleepers.append(sleeper)
        self._bell.ring()
        return await sleeper

    async def sync(self) -> None:
        """Save all that has finished, after the instruction that runs. Raises `SaveRefused`."""
        if self.phase is None:
            raise FellAsleep
        sync = _Sync(self._loop.create_future())
        self._syncs.append(sync)
        self._bell.ring()
        await sync.done

    def drain(self) -> bool:
        """Save and let go as soon as possible; False if it is not awake, so that there is nothing to save."""
        self._draining = True
        self._bell.ring()
        return self.phase == "awake"

    @property
    def wanted(self) -> bool:
        """Whether somebody wants it awake."""
        return self._called or bool(self._wakers)

    @property
    def idle_since(self) -> float | None:
        """Since when it has nothing to do, in the loop's time; None if it has, or must stay awake."""
        if self.phase != "awake" or self._running is not None or self._called:
            return None
        if self._hold is None or self._hold.idle_seconds is None:
            return None
        return self._saver.facts.last_activity

    @property
    def memory_bytes(self) -> int:
        """What its sandbox uses."""
        return 0 if self._attached is None else self._attached.sandbox.memory_bytes()

    @property
    def keys_in_use(self) -> list[str]:
        """Keys of objects that it reads, or builds on."""
        needs = self._waking.needs
        return self._saver.keys + ([] if needs is None else [needs])

    # Its life.

    async def run(self) -> None:
        """Live until it is asleep, parked, deleted or drained. Never raises but for cancellation."""
        failures = 0
        slept = False
        try:
            while not slept:
                try:
                    slept = await self._live()
                except Fenced:
                    log.info("A machine changed hands or was deleted", action="fenced", machine=self.name)
                    self._fail(MachineGone("The machine was deleted, or moved to another worker."))
                    return
                except MachineGone as gone:
                    self._fail(gone)
                    return
                except CannotWake as refused:
                    log.warning("A machine could not be woken", action="wake", machine=self.name, error=str(refused))
                    self._fail(refused)
                except Exception:
                    log.exception("A machine's task failed; it is recovered from the ledger", machine=self.name)
                    self._fail(CannotWake("The machine's worker failed; it is tried again."))
                finally:
                    await self._let_go()
                if slept or self._draining:
                    return
                failures = 1 if self._lived else failures + 1
                self._recovering = self._recovering or self._lived
                await asyncio.sleep(self._config.backoff_seconds(failures))
        finally:
            self.phase = None
            for sleeper in self._sleepers:
                if not sleeper.done():
                    sleeper.set_result(slept)
            self._sleepers.clear()
            if slept:
                for sync in self._syncs:
                    if not sync.done.done():
                        sync.done.set_result(None)
                self._syncs.clear()
            self._fail(Draining("The server is stopping.") if self._draining else FellAsleep())

    async def _live(self) -> bool:
        """One hold on the machine, from acquiring it to letting go; whether it was put to sleep."""
        self._lived = False
        hold = await self._ledger.acquire(self.name)
        if hold is None:
            self._entries.clear()
            self._look = False
            raise MachineGone("The machine is parked, deleted, or held by another worker.")
        self._hold = hold
        if self._recovering and not self.wanted and await self._has_nothing_to_recover(hold):
            return True
        while True:
            awake = await self._waking.bring_back(self._hold, recovering=self._recovering)
            self._hold, self._attached = awake.hold, awake.attached
            try:
                await self._enter(awake)
                return await self._serve()
            except (ProcessDied, SandboxError) as death:
                await self._bury(str(death))
                if self._draining:
                    return False

    async def _has_nothing_to_recover(self, hold: Hold) -> bool:
        """Let a machine sleep on that was taken over, if its head has all that its log has."""
        head = hold.head
        if head is None or not head.quiescent or hold.idle_seconds is None:
            return False
        if not await self._ledger.release(hold, head.generation):
            return False
        await self._ledger.event(self.name, "left_asleep", generation=head.generation)
        return True

    async def _enter(self, awake: Awake) -> None:
        """Begin to serve a process that was brought back, with what it left unfinished first."""
        hold, recovering = awake.hold, self._recovering
        self._recovering = False
        self._lived = True
        self._looked = False
        self._saver.begin(hold.head, clean=awake.clean)
        self._position = awake.position
        self._running = None
        self._batch.clear()
        self._capture_first = False
        self._last_run = None
        await self._ledger.ready(hold)
        self.phase = "awake"
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
        self._wakers.clear()
        generation = None if hold.head is None else hold.head.generation
        await self._ledger.event(self.name, "recovered" if recovering else "woke", generation=generation)
        if awake.going_on is not None and hold.head is not None:
            await self._go_on(awake.going_on, hold, recovering=recovering)
        elif awake.unfinished is not None:
            await self._execute_again(awake.unfinished, hold)

    async def _go_on(self, entry: Entry, hold: Hold, *, recovering: bool) -> None:
        """Take up the instruction that runs in the snapshot."""
        head = hold.head
        if head is None or entry.seq is None:
            raise ValueError(f"entry {entry.id} runs in no snapshot")
        running = Running(entry, entry.attempt, self._config, used_seconds=head.running_used_seconds)
        self._running = running
        stored = await self._ledger.output_offset(hold, entry.seq, entry.attempt)
        if recovering or stored != head.output_offset:
            running.attempt = await self._ledger.count_attempt(hold, entry.seq, head.output_offset)
        running.start(self._loop.time())
        if recovering:
            await self._ran_again(hold, entry.seq, "from the middle of it")

    async def _execute_again(self, entry: Entry, hold: Hold) -> None:
        """Execute an instruction that was started, and never finished."""
        if entry.seq is None:
            raise ValueError(f"entry {entry.id} is no instruction")
        attempt = await self._ledger.count_attempt(hold, entry.seq, 0)
        if attempt > 1:
            await self._ran_again(hold, entry.seq, "from its beginning")
        await self._begin(entry, attempt)

    async def _ran_again(self, hold: Hold, seq: int, where: str) -> None:
        message = f"Instruction {seq} was running when its process ended, and runs again {where}: it ran at least once."
        await self._ledger.notice(hold, "ran_again", message, [seq])

    async def _bury(self, reason: str) -> None:
        """The process is gone: answer what ran, remove what is left, and learn from it."""
        hold, attached = self._held()
        self.phase = "waking"
        with contextlib.suppress(ProcessDied):
            while (event := attached.next()) is not None:
                await self._hear(event)
        now = self._loop.time()
        running = self._running
        if running is None:
            await self._flush()
        else:
            running.pause(now)
            result = results.died(running, reason, now)
            output = self._batch.records() if self._batch.seq == running.seq else None
            await self._services.durably(
                lambda: self._ledger.finish(
                    hold,
                    running.seq,
                    running.attempt,
                    result,
                    undone=True,
                    ended_by=running.ended_by,
                    output=output,
                )
            )
        self._running = None
        self._batch.clear()
        self._attached = None
        await attached.close(self._config.destroy_seconds)
        # A capture on its way may be the newest that does not contain what killed the process.
        await self._saver.settle()
        seq = None if running is None else running.seq
        log.warning("A machine's process died", action="died", machine=self.name, seq=seq, reason=reason)
        await self._ledger.event(self.name, "died", reason=reason, seq=seq)
        self._recovering = True
        hold = dataclasses.replace(hold, head=self._saver.head)
        self._hold = await self._waking.learn(hold, reason, running=running is not None)

    async def _let_go(self) -> None:
        """Remove the process, whatever state it is in."""
        self.phase = "waking"
        self._running = None
        self._batch.clear()
        attached, self._attached = self._attached, None
        await self._saver.close()
        if attached is not None:
            await attached.close(self._config.destroy_seconds)

    def _fail(self, error: Exception) -> None:
        """Tell those who wait that it will not be."""
        waiting: list[asyncio.Future[Any]] = [*self._wakers, *self._sleepers, *(sync.done for sync in self._syncs)]
        self._wakers.clear()
        self._sleepers.clear()
        self._syncs.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    # Awake.

    @property
    def _called(self) -> bool:
        return bool(self._entries) or self._look

    def _held(self) -> tuple[Hold, Attached]:
        if self._hold is None or self._attached is None:
            raise RuntimeError("the machine is not held")
        return self._hold, self._attached

    async def _serve(self) -> bool:
        """Run what comes, until it may sleep; whether it was put to sleep."""
        while True:
            if self._draining:
                return await self._drain()
            if self._running is not None:
                await self._attend()
                continue
            await self._listen()
            await self._save_if_due()
            entry = await self._take()
            if entry is not None:
                await self._begin(entry, max(entry.attempt, 1))
                continue
            if await self._sleep_if_due():
                return True
            if not self._called and not self._draining:
                await self._bell.wait(self._next_at())

    async def _take(self) -> Entry | None:
        """The next entry to send, if there is one."""
        while self._entries:
            delivered = self._entries.popleft()
            if delivered.position is not None and delivered.position > self._position:
                return delivered
        quiet_since = self._saver.facts.last_activity
        if not self._looked and self._loop.time() >= quiet_since + self._config.look_seconds:
            self._looked = self._look = True
        if not self._look:
            return None
        self._look = False
        hold, attached = self._held()
        while (entry := await self._ledger.start_next(hold)) is not None and entry.kind is EntryKind.RESEED:
            if entry.position is None or entry.position <= self._position:
                raise RuntimeError("a reseed was started twice")
            self._position = entry.position
            await attached.sandbox.reseed(entry.position, entry.seed)
        if entry is not None:
            self._look = True
        return entry

    async def _begin(self, entry: Entry, attempt: int) -> None:
        """Send an instruction's frame."""
        _, attached = self._held()
        if entry.position is None or entry.position <= self._position:
            raise RuntimeError(f"entry {entry.id} was sent before, or never started")
        running = Running(entry, attempt, self._config)
        self._running = running
        self._position = entry.position
        self._looked = False
        running.start(self._loop.time())
        await attached.sandbox.execute(entry.position, running.seq, entry.code, replaying=False)

    async def _attend(self, until: float | None = None, *, draining: bool = False) -> None:
        """Follow the running instruction to its end, to `until`, or to a drain."""
        _, attached = self._held()
        while (running := self._running) is not None:
            await self._listen()
            if self._running is None or (self._draining and not draining):
                return
            now = self._loop.time()
            if until is not None and now >= until:
                return
            await attached.escalate(running, now)
            next_at = running.due_at(now)
            if self._batch:
                next_at = min(next_at, self._batch.since + self._config.output_batch_seconds)
            await self._bell.wait(next_at if until is None else min(next_at, until))

    async def _listen(self) -> None:
        """Hear all that waits, and make it durable when it is time."""
        _, attached = self._held()
        while (event := attached.next()) is not None:
            await self._hear(event)
        if self._batch:
            overdue = self._loop.time() >= self._batch.since + self._config.output_batch_seconds
            if overdue or self._batch.size_bytes >= self._config.output_batch_bytes:
                await self._flush()
        if self._unacknowledged and not self._batch:
            self._unacknowledged = not await attached.acknowledge()
        if self._saver.fenced:
            raise Fenced
        if self._syncs:
            self._answer_syncs()

    async def _hear(self, event: Event) -> None:
        self._unacknowledged = True
        running = self._running
        if isinstance(event, Result):
            if running is not None and event.seq == running.seq:
                await self._finish(event, running)
        elif isinstance(event, Output):
            # Foreground output of what does not run was said before the process was saved, and is in the log.
            current = running is not None and event.seq == running.seq
            if event.seq is not None and (event.background or current):
                if not self._batch.accepts(event):
                    await self._flush()
                self._batch.add(event, self._loop.time())
        elif isinstance(event, GuestNotice):
            hold, _ = self._held()
            seqs = [] if running is None else [running.seq]
            await self._ledger.notice(hold, event.code, event.message, seqs)

    async def _finish(self, event: Result, running: Running) -> None:
        """Commit a result, with what output is left, and only then let the guest forget it."""
        hold, attached = self._held()
        now = self._loop.time()
        running.pause(now)
        if self._batch and (self._batch.seq != running.seq or self._batch.background):
            await self._flush()
        output = self._batch.records() if self._batch else None
        result = results.answered(event, running)
        await self._services.durably(
            lambda: self._ledger.finish(
                hold, running.seq, running.attempt, result, ended_by=running.ended_by, output=output
            )
        )
        self._batch.clear()
        self._running = None
        self._last_run = (running.seq, running.attempt)
        self._saver.ran(running.used_seconds(now))
        self._waking.suspicion.prove()
        if running.ended_by is not None:
            self._capture_first = True
        self._unacknowledged = not await attached.acknowledge()

    async def _flush(self) -> None:
        """Make output durable that waits."""
        batch = self._batch
        if not batch or batch.seq is None:
            return
        hold, _ = self._held()
        seq, records, background = batch.seq, batch.records(), batch.background
        attempt = await self._attempt_of(hold, seq)
        await self._services.durably(
            lambda: self._ledger.append_output(hold, seq, attempt, records, background=background)
        )
        batch.clear()

    async def _attempt_of(self, hold: Hold, seq: int) -> int:
        """The attempt whose output this is: of what runs, or ran last, maybe before the machine slept."""
        if self._running is not None and self._running.seq == seq:
            return self._running.attempt
        if self._last_run is None or self._last_run[0] != seq:
            entries = await self._ledger.behind(hold, self._position - 1)
            if not any(entry.seq == seq for entry in entries):
                entries = await self._ledger.behind(hold, -1)
            self._last_run = (seq, next((entry.attempt for entry in entries if entry.seq == seq), 1))
        return self._last_run[1]

    # Saving and sleeping.

    def _next_at(self) -> float | None:
        """When there is something to do though nobody rings."""
        hold, _ = self._held()
        facts = self._saver.facts
        times = []
        if self._batch:
            times.append(self._batch.since + self._config.output_batch_seconds)
        if not self._looked:
            times.append(facts.last_activity + self._config.look_seconds)
        if not self._waking.suspicion.suspicious and (due := self._saver.due_at()) is not None:
            times.append(due)
        if hold.idle_seconds is not None:
            times.append(max(facts.last_activity + hold.idle_seconds, self._sleep_not_before))
        return min(times, default=None)

    async def _save_if_due(self) -> None:
        """Save in this gap between two instructions, if it is time, or asked for, or what ran must not run again."""
        due = None if self._waking.suspicion.suspicious else self._saver.due_at()
        asked = [sync for sync in self._syncs if not sync.captured]
        if not (self._capture_first or asked or (due is not None and self._loop.time() >= due)):
            return
        hold, attached = self._held()
        needed = self._capture_first
        self._capture_first = False
        for sync in asked:
            sync.captured = True
        await self._flush()
        try:
            state = await self._ping()
            if needed or not self._saver.clean or state.background:
                await self._saver.capture(hold, attached, Point(self._position))
        except SaveRefused as refused:
            self._end_syncs(refused)
        else:
            if not self._saver.busy:
                self._end_syncs(None)

    async def _ping(self) -> GuestState:
        _, attached = self._held()
        try:
            state = await attached.sandbox.ping()
        except SandboxDied:
            raise
        except SandboxError as error:
            hold, _ = self._held()
            await self._saver.failed(hold, error)
            raise SaveRefused(self._saver.failure) from error
        self._saver.facts.background = state.background
        return state

    def _answer_syncs(self) -> None:
        if not self._saver.busy:
            self._end_syncs(None if self._saver.failure is None else SaveRefused(self._saver.failure))

    def _end_syncs(self, refused: SaveRefused | None) -> None:
        """Answer those whose save has ended."""
        for sync in self._syncs:
            if sync.captured and not sync.done.done():
                if refused is None:
                    sync.done.set_result(None)
                else:
                    sync.done.set_exception(refused)
        self._syncs = [sync for sync in self._syncs if not sync.captured]

    async def _sleep_if_due(self) -> bool:
        """Fall asleep if it was idle for long enough, or somebody wishes it; whether it did."""
        hold, _ = self._held()
        sleepers, self._sleepers = self._sleepers, []
        now = self._loop.time()
        due = hold.idle_seconds is not None and now >= max(
            self._saver.facts.last_activity + hold.idle_seconds, self._sleep_not_before
        )
        if not (sleepers or due):
            return False
        refused: SaveRefused | None = None
        slept = False
        try:
            slept = await self._fall_asleep()
            self._sleep_failures = 0
        except SaveRefused as error:
            refused = error
            self._sleep_failures += 1
            self._sleep_not_before = self._loop.time() + self._config.backoff_seconds(self._sleep_failures)
        except BaseException:
            self._sleepers = sleepers + self._sleepers
            raise
        if slept:
            self._sleepers = sleepers + self._sleepers
            return True
        for sleeper in sleepers:
            if not sleeper.done():
                if refused is None:
                    sleeper.set_result(False)
                else:
                    sleeper.set_exception(refused)
        return False

    async def _fall_asleep(self, *, draining: bool = False) -> bool:
        """Pause, capture, commit, release; whether it was released. Whatever happens in between, it goes on as before.

        While draining it also works in the middle of an instruction. Raises `SaveRefused`.
        """
        hold, attached = self._held()
        await self._saver.settle()
        offset = await self._hear_out()
        running = self._running
        if self._called and not draining:
            return False
        state = await self._ping()
        head = self._saver.head
        clean = running is None and self._saver.clean and head is not None and head.position == self._position
        if clean and not state.background:
            return await self._release(hold, draining=draining)
        # From the ping on nothing is acknowledged: what the guest says now is in the image, and said again on waking.
        try:
            await attached.sandbox.pause()
            if running is not None:
                running.pause(self._loop.time())
            used_seconds = 0.0 if running is None else running.used_seconds(0.0)
            seq = None if running is None else running.seq
            await self._saver.capture(hold, attached, Point(self._position, seq, used_seconds, offset))
            while self._saver.busy and (draining or not self._called):
                await self._bell.wait()
            if self._saver.fenced:
                raise Fenced
            if not self._saver.busy and self._saver.failure is not None:
                raise SaveRefused(self._saver.failure)
        except SandboxDied:
            raise
        except SandboxError as error:
            await self._resume(running)
            raise SaveRefused(f"The machine could not be paused: {error}") from error
        except SaveRefused:
            await self._resume(running)
            raise
        # If this call's answer is lost the process must go: the head has everything, and may be another's by now.
        if not self._saver.busy and (draining or not self._called) and await self._release(hold, draining=draining):
            return True
        await self._resume(running)
        return False

    async def _resume(self, running: Running | None) -> None:
        _, attached = self._held()
        await attached.sandbox.resume()
        if running is not None:
            running.start(self._loop.time())

    async def _release(self, hold: Hold, *, draining: bool) -> bool:
        head = self._saver.head
        if head is None:
            raise RuntimeError("a machine without a head cannot be released")
        if await self._ledger.release(hold, head.generation, draining=draining):
            await self._ledger.event(self.name, "drained" if draining else "slept", generation=head.generation)
            return True
        self._look = True
        return False

    async def _hear_out(self) -> int:
        """Make durable and acknowledge all that was said; how many bytes the running instruction has said by then.

        Ends because the guest says no more than its window holds until it is acknowledged.
        """
        hold, attached = self._held()
        while True:
            while (event := attached.next()) is not None:
                await self._hear(event)
            await self._flush()
            running = self._running
            offset = 0
            if running is not None:
                offset = await self._ledger.output_offset(hold, running.seq, running.attempt)
            if await attached.acknowledge():
                self._unacknowledged = False
                return offset

    async def _drain(self) -> bool:
        """Save what is there, also in the middle of an instruction, until it is released; False if the process died."""
        hold, _ = self._held()
        failures = 0
        while True:
            await self._listen()
            self._refuse_wishes()
            if self._running is None:
                entry = await self._started(hold)
                if entry is not None:
                    await self._begin(entry, max(entry.attempt, 1))
            elif self._running.ended_by is not None:
                await self._attend(draining=True)
                continue
            self._look = False
            try:
                if await self._fall_asleep(draining=True):
                    return True
                pause_seconds = 0.01
            except SaveRefused:
                failures += 1
                pause_seconds = self._config.backoff_seconds(failures)
            until = self._loop.time() + pause_seconds
            await self._attend(until, draining=True)
            if self._running is None:
                await asyncio.sleep(pause_seconds)

    async def _started(self, hold: Hold) -> Entry | None:
        """An entry that was started and not sent: it must be in the capture."""
        self._entries.clear()
        behind = await self._ledger.behind(hold, self._position)
        return next((entry for entry in behind if entry.result is None and entry.kind is EntryKind.EXECUTE), None)

    def _refuse_wishes(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_exception(Draining("The server is stopping."))
        self._sleepers.clear()
