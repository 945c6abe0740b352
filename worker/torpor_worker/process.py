"""One process of a machine, from the moment it was brought back to its end: what it runs, and what it says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog

from torpor_worker import results
from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.changing import Prepared, make_again, told
from torpor_worker.commands import Over
from torpor_worker.errors import ProcessDied, SaveRefused
from torpor_worker.hold_ups import HoldUps
from torpor_worker.instruction import Running
from torpor_worker.instructions import Instructions
from torpor_worker.ledger import (
    Durability,
    EndedBy,
    Ending,
    Entry,
    EntryKind,
    Fenced,
    InstructionResult,
    OutputRecord,
)
from torpor_worker.sandbox import (
    CommandEnded,
    CommandOutput,
    Event,
    GuestNotice,
    GuestState,
    Limits,
    Output,
    PackagesWanted,
    Result,
    SandboxDied,
    SandboxError,
)
from torpor_worker.saving import Point, Saver
from torpor_worker.services import Services
from torpor_worker.survivors import ProcessFacts
from torpor_worker.suspicion import Suspicion
from torpor_worker.testament import Testament
from torpor_worker.waking import Awake

log = structlog.get_logger(__name__)

APPLY_PATIENCE_SECONDS = 90.0
"""How long a save waits for a change of files to be made; it is made in what is saved too, but later."""
APPLY_LOOK_SECONDS = 0.01


class Process:
    """Sends frames, hears events, and makes all of it durable before anybody else hears of it.

    Used by one task. Any method may raise `ProcessDied` or `SandboxError` (it is gone) and `Fenced` (so is the hold).
    """

    def __init__(self, awake: Awake, services: Services, bell: Bell, suspicion: Suspicion) -> None:
        self.hold = awake.hold
        self.attached: Attached = awake.attached
        self.commands = awake.commands
        self.saver = Saver(awake.hold, services, bell, clean=awake.clean)
        self.saver.facts.background = awake.background
        self.position = awake.position
        """The highest position that was sent, or left out for good."""
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
        self._dead = False
        self._unacknowledged = False
        facts = ProcessFacts(awake.hold.machine, awake.hold.epoch, awake.hold.line, awake.position)
        if awake.adoption is not None:
            facts = replace(awake.adoption.facts, epoch=awake.hold.epoch)
        self._testament = Testament(awake.attached.sandbox, facts)
        self.instructions = Instructions(awake.attached, services, self._testament)
        if awake.adoption is not None:
            self.instructions.take_over(awake.adoption)
            self.capture_first = awake.adoption.capture_first
        if self.busy:
            self.saver.runs()

    @property
    def running(self) -> Running | None:
        """The instruction that runs."""
        return self.instructions.running

    @property
    def busy(self) -> bool:
        """Whether anything runs that somebody waits for."""
        return self.running is not None or bool(self.commands.foreground)

    @property
    def is_being_ended(self) -> bool:
        """Whether anything that runs is being ended."""
        ended = None if self.running is None else self.running.ended_by
        return ended is not None or self.commands.any_being_ended

    # Instructions and commands.

    async def send(self, entry: Entry, attempt: int, *, called_at: float | None = None) -> None:
        """Send whatever was started. `called_at` is when the machine heard of it."""
        match entry.kind:
            case EntryKind.EXECUTE:
                held_up_seconds = 0.0 if called_at is None else self.hold_ups.seconds_since(called_at)
                with self._sent(entry):
                    self.saver.runs()
                    await self.instructions.begin(entry, attempt, held_up_seconds)
            case EntryKind.RESEED:
                self._advance(entry)
                await self.attached.sandbox.reseed(self.position, entry.seed)
            case EntryKind.COMMAND:
                with self._sent(entry):
                    await self.commands.begin(entry, attempt)
                self.saver.happened(len(entry.code))
                if entry.is_awaited:
                    self.saver.runs()
                await self._finish_commands()
            case EntryKind.COMMAND_INPUT | EntryKind.COMMAND_SIGNAL:
                self._advance(entry)
                await self.commands.tell(entry)
                self.saver.happened(len(entry.code))
            case EntryKind.INPUT:
                self._advance(entry)
                await self.attached.feed(entry)
                self.saver.happened(len(entry.code))
            case EntryKind.FILE:
                self._advance(entry)
                losses = await make_again(self.attached.sandbox, self._services.bodies, entry)
                self.saver.happened(len(entry.code))
                if losses:
                    await self._ledger.notice(self.hold, "changes_lost", told(losses), [])

    async def log_change(self, prepared: Prepared) -> Entry | None:
        """Put a change of files into the log, to be applied next; None if something else is to be sent before."""
        body, size_bytes = (None, 0) if prepared.body is None else (prepared.body.key, prepared.body.size_bytes)
        text = prepared.change.text()
        entry = await self._ledger.log_change(self.hold, text, body, size_bytes, behind=self.position)
        if entry is not None:
            self._advance(entry)
            self.saver.happened(len(text) + size_bytes)
        return entry

    async def send_once_more(self, entry: Entry) -> None:
        """Send what has its result once more, for the state of the machine."""
        self._advance(entry)
        if entry.kind is EntryKind.COMMAND and not entry.undone and entry.ended_by is None:
            await self.commands.begin_again(self.hold, entry, float("inf"))

    async def next_started(self) -> Entry | None:
        """The next entry of the log that was started and not sent; what is over already is passed by."""
        for entry in await self._ledger.behind(self.hold, self.position):
            if entry.result is None:
                return entry
            self._advance(entry)
        return None

    async def make_left(self) -> bool:
        """Make changes of files that are in the log next behind what was sent; whether there were any."""
        behind = await self._ledger.behind(self.hold, self.position)
        left = list(itertools.takewhile(lambda entry: entry.kind is EntryKind.FILE, behind))
        for entry in left:
            await self.send(entry, entry.attempt)
        return bool(left)

    def _advance(self, entry: Entry) -> None:
        if entry.position is None or entry.position <= self.position:
            raise RuntimeError(f"entry {entry.id} was sent before, or never started")
        self.position = entry.position

    @contextmanager
    def _sent(self, entry: Entry) -> Iterator[None]:
        """Sent as a whole or not at all: if it died before, nothing of this ran, and it is sent to the next process."""
        before = self.position
        self._advance(entry)
        try:
            yield
        except SandboxDied:
            self.position = before
            raise

    async def go_on_with(self, entry: Entry, *, recovering: bool) -> None:
        """Take up the instruction that runs in the snapshot."""
        await self.instructions.go_on_with(self.hold, entry, recovering=recovering)
        self.saver.runs()

    async def remember(self) -> None:
        """Write down what a successor of this worker must know to take this process over."""
        if self.running is not None or self.commands.any_live:
            await self.remember_clock(await self.attached.sandbox.ping())
        else:
            await self._testament.write()

    async def remember_clock(self, state: GuestState) -> None:
        """Write down the times of what runs, as the guest's clock goes on while the sandbox is frozen."""
        clock = self.instructions.clock(state.running_seconds)
        await self._testament.write_clocks(clock, self.commands.clocks(dict(state.commands or {})))

    async def attend(self, stop: Callable[[], bool], until: float | None = None) -> None:
        """Follow what runs to its end, until somebody rings and `stop` is true, or to `until`."""
        while self.busy:
            await self.listen()
            if not self.busy or stop():
                return
            now = self._loop.time()
            if until is not None and now >= until:
                return
            await self.escalate(now)
            times = (self.due_at(now), self.flush_at, until)
            await self._bell.wait(min((at for at in times if at is not None), default=None))

    def due_at(self, now: float) -> float | None:
        """When a step is due that ends something, if nothing changes."""
        times = (None if self.running is None else self.running.due_at(now), self.commands.due_at(now))
        return min((at for at in times if at is not None), default=None)

    async def escalate(self, now: float) -> None:
        """Take the steps that end what has run for too long. Raises `ProcessDied` when nothing helped."""
        if self.running is not None:
            await self.attached.escalate(self.running, now)
        await self.commands.escalate(now)

    async def _finish_commands(self) -> None:
        """Commit the ends of commands, and only then let the guest forget them."""
        while self.commands.over:
            over = self.commands.over[0]
            await self._finish_command(over)
            del self.commands.over[0]

    async def _finish_command(self, over: Over) -> None:
        seq, ended_by = over.running.seq, over.ended_by
        if self.commands.last_records(seq) is None:
            await self.commands.flush(self.hold)
        if over.entry.is_awaited and not self.busy:
            self.saver.ran(over.used_seconds)
        else:
            self.saver.happened(0)
        if over.entry.seq == self.woken_for:
            over = replace(over, result=replace(over.result, wake_ms=self._timer.milliseconds))
        if not await self._finish_with_a_save(over.running, over.result, ended_by):
            records, undone = self.commands.last_records(seq), over.is_unsupported
            await self._services.durably(
                lambda: self._ledger.finish(
                    self.hold,
                    seq,
                    over.running.attempt,
                    over.result,
                    undone=undone,
                    ended_by=ended_by,
                    output=records,
                )
            )
            self.commands.stored(seq)
            self.capture_first = self.capture_first or ended_by is EndedBy.TIMEOUT
        self.hold_ups.forget()
        await self._proved()

    async def _proved(self) -> None:
        """This process has finished a new entry."""
        self._suspicion.prove()
        if self._suspicion.counted:
            await self._services.durably(lambda: self._ledger.clear_tries(self.hold, deaths=True))
            self._suspicion.counted = False

    async def _finish(self, event: Result, running: Running) -> None:
        """Commit a result, with what output is left, and only then let the guest forget it."""
        now = self._loop.time()
        running.pause(now)
        if self.instructions.last_records(running.seq) is None:
            await self.instructions.flush(self.hold)
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
            output = self.instructions.last_records(running.seq)
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
            self.instructions.stored()
            self._note_hold_up(running.held_up_seconds)
            self.capture_first = self.capture_first or ended_by is not None
        self.instructions.ended(running)
        self.hold_ups.forget()
        if self.busy:
            self.saver.runs()
        committed_seconds = self._loop.time() - now
        self._services.metrics.instruction_seconds.observe(running.used_seconds(now) + committed_seconds)
        await self._proved()
        await self._acknowledge()

    async def _acknowledge(self) -> None:
        """Let the guest forget what is durable, if all of it is."""
        if not self.instructions.unflushed and not self.commands.unflushed:
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
            if await self._save_and_wait(ending, running):
                self._note_hold_up(running.held_up_seconds + self._loop.time() - ended_at)
                return True
            await self._bell.wait(self.saver.facts.retry_at)
            await self.apply_settings()
        return False

    def _note_hold_up(self, seconds: float) -> None:
        if seconds > 0:
            self._services.metrics.instruction_save_wait_seconds.observe(seconds)

    async def _save_and_wait(self, ending: Callable[[], Ending], ended: Running) -> bool:
        """Capture it once more and wait until that is committed, or has failed."""
        retry_at = self.saver.facts.retry_at
        if retry_at is not None and self._loop.time() < retry_at:
            return False
        try:
            await self.ping()
            running = self.running if self.running is not ended else None
            offset = 0 if running is None else await self.instructions.output_offset(self.hold)
            with self._clocks_stopped(running):
                point = self.point(offset, running)
                generation = await self.saver.capture(self.hold, self.attached, point, ending)
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
        times = (self.instructions.flush_at, self.commands.flush_at)
        return min((at for at in times if at is not None), default=None)

    async def listen(self) -> None:
        """Hear all that waits, and make it durable when it is time."""
        while (event := self.attached.next()) is not None:
            await self._hear(event)
        now = self._loop.time()
        if self.instructions.is_flush_due(now) or self.commands.is_flush_due(now):
            await self.flush()
        if self._unacknowledged:
            await self._acknowledge()
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
            offset = await self.instructions.output_offset(self.hold)
            if await self.attached.acknowledge():
                self._unacknowledged = False
                return offset

    async def flush(self) -> None:
        """Make output durable that waits."""
        await self.commands.flush(self.hold)
        await self.instructions.flush(self.hold)

    async def _hear(self, event: Event) -> None:
        self._unacknowledged = True
        running = self.running
        if isinstance(event, Result):
            if running is not None and event.seq == running.seq:
                await self._finish(event, running)
        elif isinstance(event, CommandOutput | CommandEnded):
            await self.commands.hear(self.hold, event)
            await self._finish_commands()
        elif isinstance(event, Output):
            await self.instructions.hear(self.hold, event)
        elif isinstance(event, PackagesWanted):
            if self._services.handing_in is not None:
                self._services.handing_in.wanted(self.hold, self.attached.sandbox, event)
        elif isinstance(event, GuestNotice):
            # The guest mends what an instruction broke when that has been answered.
            last_seq = self.instructions.last_seq
            seqs = [last_seq] if last_seq >= 0 else []
            await self._ledger.notice(self.hold, event.code, event.message, seqs)

    # Saves and ends.

    async def ping(self) -> GuestState:
        """Ask the guest for its state, before a capture, when no change of files is half made.

        Raises `SaveRefused` if it does not answer.
        """
        patience_ends = self._loop.time() + APPLY_PATIENCE_SECONDS
        try:
            state = await self.attached.sandbox.ping()
            while state.applying and self._loop.time() < patience_ends:
                await asyncio.sleep(APPLY_LOOK_SECONDS)
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
            if not needed and self.saver.clean and not state.background and not self.commands.any_live:
                return False
            with self._clocks_stopped(None):
                await self.saver.capture(self.hold, self.attached, self.point(0))
        await self._remember_stopped_clocks()
        return True

    async def save_in_the_middle(self) -> None:
        """Capture it while something runs, unless that ends meanwhile or is being ended. Raises `SaveRefused`.

        What the guest says of an instruction from the ping on is not acknowledged before the capture is done: it is in
        the image, and said again by a process that goes on from it.
        """
        offset = await self.hear_out()
        running = self.running
        if running is None:
            if self.busy:
                await self.save(needed=True)
            return
        if running.ended_by is not None:
            return
        began = self._loop.time()
        await self.ping()
        try:
            with self._clocks_stopped(running):
                await self.saver.capture(self.hold, self.attached, self.point(offset, running))
        finally:
            running.held_up_seconds += self._loop.time() - began
        await self._remember_stopped_clocks()

    async def _remember_stopped_clocks(self) -> None:
        """Write down the times of what runs after a capture, which is none of it."""
        if self.running is None and self.commands.due_at(self._loop.time()) is None:
            return
        try:
            await self.remember_clock(await self.attached.sandbox.ping())
        except SandboxDied:
            raise
        except SandboxError as error:  # a successor would count this capture as time used
            log.warning("A clock was not written down", action="save", machine=self.hold.machine, error=str(error))

    @contextmanager
    def _clocks_stopped(self, running: Running | None) -> Iterator[None]:
        now = self._loop.time()
        self.commands.pause(now)
        if running is not None:
            running.pause(now)
        try:
            yield
        finally:
            now = self._loop.time()
            self.commands.start(now)
            if running is not None:
                running.start(now)

    def point(self, offset: int, running: Running | None = None) -> Point:
        """This moment, in which the running instruction, if any, has said so many bytes. All clocks must stand."""
        now = self._loop.time()
        commands = self.commands.point(now)
        if running is None:
            return Point(self.position, commands=commands)
        return Point(
            self.position,
            running.seq,
            running.used_seconds(now),
            offset,
            running.attempt,
            self.instructions.said_bytes,
            commands,
        )

    async def bury(self, reason: str) -> int | None:
        """It is gone: answer what ran, which is undone, and remove what is left. The seq of one that was answered.

        A command in the background is not answered: it goes on from where it was saved, or runs again.
        """
        self._dead = True
        await self._hear_last_words()
        running = self.running
        await self.commands.flush(self.hold)
        records = None if running is None else self.instructions.last_records(running.seq)
        if records is None:
            await self.instructions.flush(self.hold)
        ended = [*([running] if running is not None else []), *self.commands.foreground]
        ended += [over.running for over in self.commands.over if over.entry.is_awaited]
        for each in ended:
            await self._answer_dead(each, reason, records or [] if each is running else [])
        await self.attached.close(self._config.destroy_seconds)
        # A capture on its way may be the newest that does not contain what killed the process.
        await self.saver.settle()
        return ended[0].seq if ended else None

    async def _answer_dead(self, ended: Running, reason: str, output: list[OutputRecord]) -> None:
        now = self._loop.time()
        ended.pause(now)
        result = results.died(ended, reason, now)
        await self._services.durably(
            lambda: self._ledger.finish(
                self.hold, ended.seq, ended.attempt, result, undone=True, ended_by=ended.ended_by, output=output
            )
        )

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
