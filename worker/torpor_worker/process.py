"""One process of a machine, from the moment it was brought back to its end: what it was sent, and what of it runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog

from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.changing import Prepared, make_again, told
from torpor_worker.hold_ups import HoldUps
from torpor_worker.instruction import Running
from torpor_worker.instructions import Instructions
from torpor_worker.ledger import (
    Ending,
    Entry,
    EntryKind,
)
from torpor_worker.sandbox import (
    GuestState,
    Limits,
    SandboxDied,
    SandboxError,
)
from torpor_worker.saving import Point, Saver
from torpor_worker.services import Services
from torpor_worker.survivors import ProcessFacts
from torpor_worker.testament import Testament
from torpor_worker.waking import Awake

log = structlog.get_logger(__name__)

APPLY_PATIENCE_SECONDS = 90.0
"""How long a save waits for a change of files to be made; it is made in what is saved too, but later."""
APPLY_LOOK_SECONDS = 0.01


class Process:
    """Sends frames, and is captured with all that they have done.

    Used by one task. Any method may raise `ProcessDied` or `SandboxError` (it is gone) and `Fenced` (so is the hold).
    """

    def __init__(self, awake: Awake, services: Services, bell: Bell) -> None:
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
        self._services = services
        self._ledger = services.ledger
        self._loop = asyncio.get_running_loop()
        self.hold_ups = HoldUps(self._loop.time)
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

    # What it is sent.

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

    # What runs.

    def due_at(self, now: float) -> float | None:
        """When a step is due that ends something, if nothing changes."""
        times = (None if self.running is None else self.running.due_at(now), self.commands.due_at(now))
        return min((at for at in times if at is not None), default=None)

    async def escalate(self, now: float) -> None:
        """Take the steps that end what has run for too long. Raises `ProcessDied` when nothing helped."""
        if self.running is not None:
            await self.attached.escalate(self.running, now)
        await self.commands.escalate(now)

    def stop_clocks(self, running: Running | None) -> None:
        """Stop those of commands, and of an instruction."""
        now = self._loop.time()
        self.commands.pause(now)
        if running is not None:
            running.pause(now)

    def start_clocks(self, running: Running | None) -> None:
        """Let them run again."""
        now = self._loop.time()
        self.commands.start(now)
        if running is not None:
            running.start(now)

    @property
    def flush_at(self) -> float | None:
        """When output that waits is to be made durable at the latest; None if none waits."""
        times = (self.instructions.flush_at, self.commands.flush_at)
        return min((at for at in times if at is not None), default=None)

    async def flush(self) -> None:
        """Make output durable that waits."""
        await self.commands.flush(self.hold)
        await self.instructions.flush(self.hold)

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

    async def apply_settings(self) -> None:
        """Take over the machine's settings if they were changed: idle time, memory, durability, recovery, tags."""
        if not self.settings_changed:
            return
        self.settings_changed = False
        before, self.hold = self.hold, await self._ledger.settings(self.hold)
        self.saver.apply_settings(self.hold)
        if self.hold.memory_bytes != before.memory_bytes:
            await self.attached.sandbox.limit(Limits(memory_bytes=self.hold.memory_bytes))

    # Saves.

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

    async def capture(self, offset: int, running: Running | None, ending: Callable[[], Ending] | None = None) -> int:
        """Begin a save of this moment, in which `running`, if any, has said so many bytes; its generation.

        The caller has pinged. `ending` is as `Saver.capture` says. Raises `SaveRefused`.
        """
        self.stop_clocks(running)
        try:
            return await self.saver.capture(self.hold, self.attached, self.point(offset, running), ending)
        finally:
            self.start_clocks(running)

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

    async def remove(self) -> None:
        """Remove it, whatever state it is in."""
        await self.saver.close()
        await self.attached.close(self._services.config.destroy_seconds)
