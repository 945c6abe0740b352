"""One process of a machine, from the moment it was brought back to its end: what it runs, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from torpor_worker import results
from torpor_worker.adopting import Adoption
from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.errors import ProcessDied, SaveRefused
from torpor_worker.hold_ups import HoldUps
from torpor_worker.instruction import Running
from torpor_worker.ledger import Durability, EndedBy, Ending, Entry, Fenced, InstructionResult
from torpor_worker.output import OutputBatch
from torpor_worker.sandbox import Event, GuestNotice, GuestState, Limits, Output, Result, SandboxDied, SandboxError
from torpor_worker.saving import Point, Saver
from torpor_worker.services import Services
from torpor_worker.survivors import Clock, Origin, ProcessFacts
from torpor_worker.suspicion import Suspicion
from torpor_worker.waking import Awake

log = structlog.get_logger(__name__)


class Process:
    """Sends frames, hears events, and makes all of it durable before anybody else hears of it.

    Used by one task. Any method may raise `ProcessDied` or `SandboxError` (it is gone) and `Fenced` (so is the hold).
    """

    def __init__(self, awake: Awake, services: Services, bell: Bell, suspicion: Suspicion) -> None:
        self.hold = awake.hold
        self.attached: Attached = awake.attached
        self.saver = Saver(awake.hold, services, bell, clean=awake.clean)
        self.saver.facts.background = awake.background
        self.position = awake.position
        """The highest position that was sent, or left out for good."""
        self.running: Running | None = None
        self.woken_for: int | None = None
        """The instruction that waited for this wake."""
        self.capture_first = False
        """What ran last must not run again: it is captured before the next frame."""
        self.settings_changed = False
        """The machine has other settings than the hold."""
        self._timer = awake.timer
        self._services = services
        self._ledger = services.ledger
        self._config = services.config
        self._bell = bell
        self._suspicion = suspicion
        self._loop = asyncio.get_running_loop()
        self.hold_ups = HoldUps(self._loop.time)
        self._free_since = self._loop.time()
        """When the last instruction ended."""
        self._dead = False
        self._batch = OutputBatch()
        self._unacknowledged = False
        self._last_run: tuple[int, int] | None = None
        """Seq and attempt."""
        self._first_begun: int | None = None
        """The first seq that was begun in this process; the ledger has of it, and later ones, what the guest counts."""
        self._facts = ProcessFacts(awake.hold.machine, awake.hold.epoch, awake.hold.line, awake.position)
        if awake.adoption is not None:
            self._take_over(awake.adoption)

    def _take_over(self, adoption: Adoption) -> None:
        """Go on where the worker of before was."""
        self._facts = replace(adoption.facts, epoch=self.hold.epoch)
        self._first_begun = adoption.first_seq
        self.capture_first = adoption.capture_first
        if adoption.last is not None and adoption.last.seq is not None:
            self._last_run = (adoption.last.seq, adoption.last.attempt)
        if adoption.running is not None:
            entry = adoption.running
            self.running = Running(entry, entry.attempt, self._config, used_seconds=adoption.used_seconds)
            self.running.start(self._loop.time())
            self.saver.runs()

    @property
    def last_seq(self) -> int:
        """The seq that ran last, or runs; -1 before the first of this process."""
        last_run = -1 if self._last_run is None else self._last_run[0]
        return last_run if self.running is None else self.running.seq

    # Instructions.

    async def begin(self, entry: Entry, attempt: int, *, called_at: float | None = None) -> None:
        """Send an instruction's frame; its clock runs from here. `called_at` is when the machine heard of it."""
        if entry.position is None or entry.position <= self.position:
            raise RuntimeError(f"entry {entry.id} was sent before, or never started")
        running = Running(entry, attempt, self._config)
        if called_at is not None:
            running.held_up_seconds = self.hold_ups.seconds_since(max(called_at, self._free_since))
        if self._first_begun is None:
            self._first_begun = running.seq
        self.running, before = running, self.position
        self.position = entry.position
        running.start(self._loop.time())
        self.saver.runs()
        try:
            await self.attached.sandbox.execute(entry.position, running.seq, entry.code, replaying=False)
        except SandboxDied:
            # It had died before the frame was whole: nothing of this ran, and it is sent to the next process.
            self.running, self.position = None, before
            raise

    async def go_on_with(self, entry: Entry, *, recovering: bool) -> None:
        """Take up the instruction that runs in the snapshot, with the time that it used.

        If output came after the snapshot, or the process died in between, this is a new attempt at it.
        """
        head = self.hold.head
        if head is None:
            raise RuntimeError("nothing runs in an empty interpreter")
        running = Running(entry, entry.attempt, self._config, used_seconds=head.running_used_seconds)
        self.running = running
        stored = await self._ledger.output_offset(self.hold, running.seq, entry.attempt)
        if recovering or stored != head.output_offset:
            running.attempt = await self._ledger.count_attempt(self.hold, running.seq, head.output_offset)
        state = await self.attached.sandbox.ping()
        running.start(self._loop.time())
        self.saver.runs()
        clock = Clock(running.seq, head.running_used_seconds, state.running_seconds)
        self._facts = replace(self._facts, clock=clock)

    async def remember(self) -> None:
        """Write down what a successor of this worker must know to take this process over."""
        await self.attached.sandbox.remember(self._facts)

    async def remember_clock(self, state: GuestState) -> None:
        """Write down the running instruction's time, as the guest's clock goes on while the sandbox is frozen."""
        running = self.running
        if running is not None:
            clock = Clock(running.seq, running.used_seconds(self._loop.time()), state.running_seconds)
            self._facts = replace(self._facts, clock=clock)
            await self.remember()

    async def reseed(self, entry: Entry) -> None:
        """Give the guest fresh randomness."""
        if entry.position is None or entry.position <= self.position:
            raise RuntimeError(f"entry {entry.id} was sent before, or never started")
        self.position = entry.position
        await self.attached.sandbox.reseed(entry.position, entry.seed)

    async def attend(self, stop: Callable[[], bool], until: float | None = None) -> None:
        """Follow the running instruction to its end, until somebody rings and `stop` is true, or to `until`."""
        while (running := self.running) is not None:
            await self.listen()
            if self.running is None or stop():
                return
            now = self._loop.time()
            if until is not None and now >= until:
                return
            await self.attached.escalate(running, now)
            next_at = running.due_at(now)
            if (flush_at := self.flush_at) is not None:
                next_at = min(next_at, flush_at)
            await self._bell.wait(next_at if until is None else min(next_at, until))

    async def _finish(self, event: Result, running: Running) -> None:
        """Commit a result, with what output is left, and only then let the guest forget it."""
        now = self._loop.time()
        running.pause(now)
        if self._batch and (self._batch.seq != running.seq or self._batch.background):
            await self.flush()
        if not running.steps:
            # An interrupt was wished for and came to nothing: it ended by itself, and a replay may run it again.
            running.ended_by = None
        ended_by = running.ended_by  # from here on an interrupt comes too late
        result = results.answered(event, running)
        if running.seq == self.woken_for:
            result = replace(result, wake_ms=self._timer.milliseconds)
        self.saver.ran(running.used_seconds(now), len(running.entry.code))
        saved = await self._finish_with_a_save(running, result, ended_by)
        if not saved:
            output = self._batch.records() if self._batch else None
            held_up_ms = round(1000 * running.held_up_seconds)
            await self._services.durably(
                lambda: self._ledger.finish(
                    self.hold,
                    running.seq,
                    running.attempt,
                    result,
                    ended_by=ended_by,
                    output=output,
                    waited_for_save_ms=held_up_ms,
                )
            )
            self._batch.clear()
            self._note_hold_up(running.held_up_seconds)
            self.capture_first = self.capture_first or ended_by is not None
        self.running = None
        self._free_since = self._loop.time()
        committed_seconds = self._free_since - now
        self._services.metrics.instruction_seconds.observe(running.used_seconds(now) + committed_seconds)
        self._last_run = (running.seq, running.attempt)
        self._suspicion.prove()
        if self._suspicion.counted:
            await self._services.durably(lambda: self._ledger.clear_tries(self.hold, deaths=True))
            self._suspicion.counted = False
        self._unacknowledged = not await self.attached.acknowledge()

    async def _finish_with_a_save(self, running: Running, result: InstructionResult, ended_by: EndedBy | None) -> bool:
        """Save the machine and commit the result with that, for as long as it takes, if the machine is so durable.

        False if it is not, or not any more. Until then nothing that is said is heard, so that what comes behind the
        result stays behind it; the guest says no more than its window holds.
        """
        ended_at = self._loop.time()

        def ending() -> Ending:
            held_up_ms = round(1000 * (running.held_up_seconds + self._loop.time() - ended_at))
            return Ending(running.seq, running.attempt, result, ended_by, held_up_ms)

        while self.hold.durability is Durability.INSTRUCTION:
            if self._dead or self.attached.ended:
                raise ProcessDied("it ended before it was saved with the result")
            await self.flush()
            if await self._save_and_wait(ending):
                self._note_hold_up(running.held_up_seconds + self._loop.time() - ended_at)
                return True
            await self._bell.wait(self.saver.facts.retry_at)
            await self.apply_settings()
        return False

    def _note_hold_up(self, seconds: float) -> None:
        if seconds > 0:
            self._services.metrics.instruction_save_wait_seconds.observe(seconds)

    async def _save_and_wait(self, ending: Callable[[], Ending]) -> bool:
        """Capture it once more and wait until that is committed, or has failed."""
        retry_at = self.saver.facts.retry_at
        if retry_at is not None and self._loop.time() < retry_at:
            return False
        try:
            await self.ping()
            generation = await self.saver.capture(self.hold, self.attached, Point(self.position), ending)
        except SaveRefused:
            return False
        while self.saver.busy and not self.saver.has_committed(generation):
            await self._bell.wait()
        if self.saver.fenced:
            raise Fenced
        return self.saver.has_committed(generation)

    async def apply_settings(self) -> None:
        """Take over the machine's settings if they were changed: idle time, memory, durability, recovery, tags."""
        if not self.settings_changed:
            return
        self.settings_changed = False
        before, self.hold = self.hold, await self._ledger.settings(self.hold)
        self.saver.apply_settings(self.hold)
        if self.hold.memory_bytes != before.memory_bytes:
            await self.attached.sandbox.limit(Limits(memory_bytes=self.hold.memory_bytes))

    # What it says.

    @property
    def flush_at(self) -> float | None:
        """When output that waits is to be made durable at the latest; None if none waits."""
        return self._batch.since + self._config.output_batch_seconds if self._batch else None

    async def listen(self) -> None:
        """Hear all that waits, and make it durable when it is time."""
        while (event := self.attached.next()) is not None:
            await self._hear(event)
        if (flush_at := self.flush_at) is not None and (
            self._loop.time() >= flush_at or self._batch.size_bytes >= self._config.output_batch_bytes
        ):
            await self.flush()
        if self._unacknowledged and not self._batch:
            self._unacknowledged = not await self.attached.acknowledge()
        if self.saver.fenced:
            raise Fenced

    async def hear_out(self) -> int:
        """Make durable and acknowledge all that was said; how many bytes the running instruction has said by then.

        Ends because the guest says no more than its window holds until it is acknowledged.
        """
        while True:
            while (event := self.attached.next()) is not None:
                await self._hear(event)
            await self.flush()
            running = self.running
            offset = 0
            if running is not None:
                offset = await self._ledger.output_offset(self.hold, running.seq, running.attempt)
            if await self.attached.acknowledge():
                self._unacknowledged = False
                return offset

    async def flush(self) -> None:
        """Make output durable that waits."""
        batch = self._batch
        if not batch or batch.seq is None:
            return
        seq, records, background = batch.seq, batch.records(), batch.background
        attempt = await self._attempt_of(seq)
        await self._remember_origin(seq, attempt, batch.offset)
        await self._services.durably(
            lambda: self._ledger.append_output(self.hold, seq, attempt, records, background=background)
        )
        batch.clear()

    async def _hear(self, event: Event) -> None:
        self._unacknowledged = True
        running = self.running
        if isinstance(event, Result):
            if running is not None and event.seq == running.seq:
                await self._finish(event, running)
        elif isinstance(event, Output):
            # Foreground output of what does not run was said before the process was saved, and is in the log.
            current = running is not None and event.seq == running.seq
            if event.data and event.seq is not None and (event.background or current):
                if not self._batch.accepts(event):
                    await self.flush()
                self._batch.add(event, self._loop.time())
        elif isinstance(event, GuestNotice):
            # The guest mends what an instruction broke when that has been answered.
            seqs = [self.last_seq] if self.last_seq >= 0 else []
            await self._ledger.notice(self.hold, event.code, event.message, seqs)

    async def _remember_origin(self, seq: int, attempt: int, offset: int | None) -> None:
        """Write down, before the first output is stored of what came with the snapshot, where it goes."""
        begun = self._first_begun is not None and seq >= self._first_begun
        known = self._facts.origin is not None and self._facts.origin.seq == seq
        if begun or known or offset is None:
            return
        given_bytes = await self._ledger.output_given(self.hold, seq, attempt)
        self._facts = replace(self._facts, origin=Origin(seq, attempt, given_bytes - offset))
        await self.remember()

    async def _attempt_of(self, seq: int) -> int:
        """The attempt whose output this is: of what runs, or ran last, maybe before the machine slept."""
        if self.running is not None and self.running.seq == seq:
            return self.running.attempt
        if self._last_run is None or self._last_run[0] != seq:
            entries = await self._ledger.behind(self.hold, self.position - 1)
            if not any(entry.seq == seq for entry in entries):
                entries = await self._ledger.behind(self.hold, -1)
            self._last_run = (seq, next((entry.attempt for entry in entries if entry.seq == seq), 1))
        return self._last_run[1]

    # Saves and ends.

    async def ping(self) -> GuestState:
        """Ask the guest for its state, before a capture. Raises `SaveRefused` if it does not answer."""
        try:
            state = await self.attached.sandbox.ping()
        except SandboxDied:
            raise
        except SandboxError as error:
            raise await self.saver.refuse(self.hold, error) from error
        self.saver.facts.background = state.background
        return state

    async def save(self, *, needed: bool) -> bool:
        """Capture it between two instructions, if anything happened since the last save; whether it was captured.

        `needed`: whether or not anything did. Raises `SaveRefused`.
        """
        self.capture_first = False
        await self.flush()
        with self.hold_ups.one():
            state = await self.ping()
            if not needed and self.saver.clean and not state.background:
                return False
            await self.saver.capture(self.hold, self.attached, Point(self.position))
        return True

    async def save_in_the_middle(self) -> None:
        """Capture it while an instruction runs, unless that ends meanwhile or is being ended. Raises `SaveRefused`.

        What the guest says from the ping on is not acknowledged before the capture is done: it is in the image, and
        said again by a process that goes on from it.
        """
        offset = await self.hear_out()
        running = self.running
        if running is None or running.ended_by is not None:
            return
        began = self._loop.time()
        await self.ping()
        running.pause(self._loop.time())
        try:
            await self.saver.capture(self.hold, self.attached, self.point(offset))
        finally:
            now = self._loop.time()
            running.start(now)
            running.held_up_seconds += now - began
        try:
            await self.remember_clock(await self.attached.sandbox.ping())
        except SandboxDied:
            raise
        except SandboxError as error:  # a successor would count this capture as time used
            log.warning("A clock was not written down", action="save", machine=self.hold.machine, error=str(error))

    def point(self, offset: int) -> Point:
        """This moment, in which the running instruction, if any, has said so many bytes. Its clock must stand."""
        running = self.running
        if running is None:
            return Point(self.position)
        used_seconds = running.used_seconds(self._loop.time())
        return Point(self.position, running.seq, used_seconds, offset, running.attempt)

    async def bury(self, reason: str) -> int | None:
        """It is gone: answer what ran, which is undone, and remove what is left. The seq of that instruction."""
        self._dead = True
        await self._hear_last_words()
        running = self.running
        if running is None or self._batch.seq != running.seq or self._batch.background:
            await self.flush()
        if running is not None:
            now = self._loop.time()
            running.pause(now)
            result = results.died(running, reason, now)
            output = self._batch.records()
            await self._services.durably(
                lambda: self._ledger.finish(
                    self.hold,
                    running.seq,
                    running.attempt,
                    result,
                    undone=True,
                    ended_by=running.ended_by,
                    output=output,
                )
            )
        await self.attached.close(self._config.destroy_seconds)
        # A capture on its way may be the newest that does not contain what killed the process.
        await self.saver.settle()
        return None if running is None else running.seq

    async def _hear_last_words(self) -> None:
        """Take what it had said before it ended; the result of what ran may be among it."""
        while True:
            try:
                event = self.attached.next()
                if event is None:
                    return
                await self._hear(event)
            except ProcessDied:
                return
            except SandboxError:
                continue  # what was heard is durable; only the acknowledgement reached nobody

    async def remove(self) -> None:
        """Remove it, whatever state it is in."""
        await self.saver.close()
        await self.attached.close(self._config.destroy_seconds)
