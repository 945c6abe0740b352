"""The commands of one process: their clocks, what they say, and how they end."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field, replace

import structlog

from torpor_worker import results
from torpor_worker.attached import Attached
from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.config import WorkerConfig
from torpor_worker.errors import ProcessDied
from torpor_worker.instruction import Running, command_ladder
from torpor_worker.ledger import EndedBy, Entry, EntryKind, Hold, InstructionResult, OutputRecord, RunningCommand
from torpor_worker.sandbox import CommandEnded, CommandOutput, SandboxDied, SandboxError
from torpor_worker.services import Services
from torpor_worker.survivors import CommandClock

log = structlog.get_logger(__name__)

SAID_KEPT = 128
"""Of so many commands it is known where their output goes; of others that have ended it is looked up when it comes."""
STEP_SIGNALS = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}


@dataclass(slots=True)
class Said:
    """What a command says: where that goes, and how much of it is durable or waits here."""

    seq: int
    attempt: int
    heard_bytes: int
    """The offset up to which the ledger has been given its output, or that waits in `records`."""
    records: list[OutputRecord] = field(default_factory=list)
    skipped_bytes: int = 0
    """Only to be counted; they come behind the records."""
    size_bytes: int = 0
    since: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.records) or self.skipped_bytes > 0

    def take(self, output: CommandOutput, now: float) -> None:
        """Add what of a piece was not heard before: a guest says again what nobody has acknowledged."""
        known = max(0, self.heard_bytes - output.offset)
        data, skipped_bytes = output.data[known:], max(0, output.skipped_bytes - known)
        if not data and not skipped_bytes:
            return
        if not self:
            self.since = now
        if data and self.records and self.records[-1].kind == output.kind:
            self.records[-1] = OutputRecord(output.kind, self.records[-1].data + data)
        elif data:
            self.records.append(OutputRecord(output.kind, data))
        self.size_bytes += len(data)
        self.skipped_bytes += skipped_bytes
        self.heard_bytes = max(self.heard_bytes, output.end)

    def clear(self) -> None:
        """What waited is durable."""
        self.records, self.skipped_bytes, self.size_bytes = [], 0, 0


@dataclass(slots=True)
class Live:
    """A command that runs."""

    entry: Entry
    running: Running
    again: bool = False
    """Its end was before, and is not wanted: a rollback went back to before that."""

    @property
    def is_replayed(self) -> bool:
        """Whether it has its result, and runs once more for the state of the machine."""
        return self.entry.result is not None and not self.again


@dataclass(frozen=True, slots=True)
class Over:
    """A command that has ended, and whose result is to be committed."""

    entry: Entry
    running: Running
    result: InstructionResult
    ended_by: EndedBy | None
    used_seconds: float
    is_unsupported: bool = False
    """It was never started: the guest knows of no commands."""


class Commands:
    """Used by one task. Sends frames, hears events; of ends it only says which are to be committed."""

    def __init__(self, attached: Attached, services: Services, *, adopted: bool = False) -> None:
        """`adopted`: of a process that has outlived its worker; what that has stored, the guest may say again."""
        self._attached = attached
        self._ledger = services.ledger
        self._services = services
        self._config: WorkerConfig = services.config
        self._loop = asyncio.get_running_loop()
        self._live: dict[int, Live] = {}
        self._said: dict[int, Said | None] = {}
        """By seq; None: what it says is in the log already, or is nobody's."""
        self.over: list[Over] = []
        self.differed: list[int] = []
        """Replayed ones that ended otherwise than at first."""
        self.replayed: list[int] = []
        self.effects_lost: list[int] = []
        self.run_seconds = 0.0
        """How long those that somebody waits for have run as replays."""
        self._ahead: dict[int, int] = {}
        """How many bytes more the ledger has of what a command said than the guest counts, where that is not 0."""
        self._adopted = adopted
        self._supported: bool | None = None

    # What is sent.

    async def begin(self, entry: Entry, attempt: int, *, again: bool = False) -> None:
        """Start a command; its clock runs from here. On a guest that knows of none it is over at once.

        `again`: it has its end, which is not wanted of it once more.
        """
        seq, position = _numbers(entry)
        running = Running(entry, attempt, self._config, ladder=command_ladder(self._config))
        if not await self._is_supported():
            self.over.append(Over(entry, running, results.unsupported(), None, 0.0, is_unsupported=True))
            return
        self._said[seq] = None if entry.result is not None else Said(seq, attempt, 0)
        self._live[seq] = Live(entry, running, again)
        self._forget()
        running.start(self._loop.time())
        await self._attached.sandbox.command(
            position, seq, CommandSpec.from_text(entry.code), self._config.output_limit_bytes
        )

    async def begin_again(self, hold: Hold, entry: Entry, limit_seconds: float) -> None:
        """Start a command that has ended before, to end as it did; it is given as much time at most.

        One that ended only behind the point which its machine went back to is not waited for: it goes on as background
        work, and of what it says comes behind all that it said before what is more than that.
        """
        if entry.ended_here:
            await self.begin(_patient(entry, limit_seconds), entry.attempt)
            return
        await self.begin(entry, entry.attempt, again=True)
        seq, _ = _numbers(entry)
        self._said[seq] = Said(seq, entry.attempt, await self._ledger.output_given(hold, seq, entry.attempt))

    async def tell(self, entry: Entry) -> None:
        """Send input, or a signal, to a command."""
        if entry.position is None or entry.target is None:
            raise ValueError(f"entry {entry.id} was not started, or is for no command")
        if not await self._is_supported():
            return
        sandbox = self._attached.sandbox
        if entry.kind is EntryKind.COMMAND_INPUT:
            await sandbox.feed_command(entry.position, entry.target, CommandInput.from_text(entry.code))
        else:
            await sandbox.signal_command(entry.position, entry.target, CommandSignal.from_text(entry.code))

    async def _is_supported(self) -> bool:
        if self._supported is None:
            self._supported = (await self._attached.sandbox.ping()).commands is not None
        return self._supported

    # Those that run in what was brought back, or taken over.

    async def go_on_with(self, hold: Hold, entry: Entry, at: RunningCommand, *, recovering: bool) -> None:
        """Take up a command that runs in the snapshot. If it said more since, this is a new attempt at it."""
        seq, _ = _numbers(entry)
        if entry.result is not None and not entry.ended_here:
            # What it says now comes behind all that it said before.
            self._said[seq] = Said(seq, entry.attempt, at.said_bytes)
            self._take_up(entry, entry.attempt, at.used_seconds, again=True)
            self._ahead[seq] = await self._ledger.output_given(hold, seq, entry.attempt) - at.said_bytes
        elif entry.result is not None:
            self._said[seq] = None
            self._take_up(_patient(entry, float("inf")), entry.attempt, 0.0)
            if entry.ended_by is EndedBy.TIMEOUT:
                self._live[seq].running.stop(EndedBy.TIMEOUT, self._loop.time())
        else:
            attempt = entry.attempt
            if recovering or await self._ledger.output_given(hold, seq, attempt) != at.output_offset:
                attempt = await self._ledger.count_attempt(hold, seq, at.output_offset, counted=True)
            self._said[seq] = Said(seq, attempt, at.said_bytes)
            self._take_up(entry, attempt, at.used_seconds)
            self._ahead[seq] = at.output_offset - at.said_bytes

    async def take_over(self, hold: Hold, entry: Entry, used_seconds: float, ahead_bytes: int) -> None:
        """Take up a command of a process that has outlived its worker."""
        seq, _ = _numbers(entry)
        given = await self._ledger.output_given(hold, seq, entry.attempt)
        self._said[seq] = Said(seq, entry.attempt, given - ahead_bytes)
        self._ahead[seq] = ahead_bytes
        self._take_up(entry, entry.attempt, used_seconds, again=entry.result is not None)

    def _take_up(self, entry: Entry, attempt: int, used_seconds: float, *, again: bool = False) -> None:
        ladder = command_ladder(self._config)
        running = Running(entry, attempt, self._config, used_seconds=used_seconds, ladder=ladder)
        running.start(self._loop.time())
        self._live[running.seq] = Live(entry, running, again)

    # What they say.

    async def hear(self, hold: Hold, event: CommandOutput | CommandEnded) -> None:
        """Take what a command said, or that it has ended."""
        if isinstance(event, CommandEnded):
            self._ended(event)
            return
        said = self._said[event.seq] if event.seq in self._said else await self._found(hold, event)
        if said is not None:
            self._said[event.seq] = said
            said.take(event, self._loop.time())
            self._forget()

    def _forget(self) -> None:
        """Keep no more than is needed: a machine may be awake for years, and a guest make numbers up."""
        too_many = len(self._said) - SAID_KEPT
        if too_many > 0:
            over = {each.entry.seq for each in self.over}
            idle = [
                seq
                for seq, said in self._said.items()
                if said is not None and not said and seq not in self._live and seq not in over
            ]
            for seq in idle[:too_many]:
                del self._said[seq]

    async def _found(self, hold: Hold, output: CommandOutput) -> Said | None:
        """Where output goes of a command that does not run: something that it left holds its pipes open."""
        for entry in await self._ledger.entries(hold, [output.seq]):
            if entry.kind is EntryKind.COMMAND and entry.result is not None:
                heard_bytes = output.offset
                if self._adopted:
                    given = await self._ledger.output_given(hold, output.seq, entry.attempt)
                    heard_bytes = given - self._ahead.get(output.seq, 0)
                return Said(output.seq, entry.attempt, heard_bytes)
        return None  # of the machine that this one was forked from

    def _ended(self, ended: CommandEnded) -> None:
        live = self._live.pop(ended.seq, None)
        if live is None:
            return
        running, entry = live.running, live.entry
        running.pause(self._loop.time())
        result = results.command_ended(ended, running)
        if live.is_replayed:
            if entry.ended_by is not None:
                self.effects_lost.append(ended.seq)
            else:
                self.replayed.append(ended.seq)
                if entry.result is None or not results.same(entry.result, result):
                    self.differed.append(ended.seq)
            if entry.is_awaited:
                self.run_seconds += running.used_seconds(self._loop.time())
        elif not live.again:
            by_signal = EndedBy.SIGNAL if ended.signal is not None else None
            ended_by = EndedBy.TIMEOUT if running.ended_by is EndedBy.TIMEOUT and running.steps else by_signal
            used_seconds = running.used_seconds(self._loop.time())
            self.over.append(Over(entry, running, result, ended_by, used_seconds))

    def has_said(self, seq: int | None, size_bytes: int) -> bool:
        """Whether a command has said so much, or has ended."""
        said = None if seq is None else self._said.get(seq)
        return said is None or seq not in self._live or said.heard_bytes >= size_bytes

    @property
    def unflushed(self) -> bool:
        """Whether output waits to be made durable."""
        return any(self._said.values())

    @property
    def flush_at(self) -> float | None:
        """When output that waits is to be made durable at the latest; None if none waits."""
        since = min((said.since for said in self._said.values() if said), default=None)
        return None if since is None else since + self._config.output_batch_seconds

    def is_flush_due(self, now: float) -> bool:
        """Whether output waits that is to be made durable now."""
        flush_at = self.flush_at
        if flush_at is None:
            return False
        waiting = sum(said.size_bytes for said in self._said.values() if said)
        return now >= flush_at or waiting >= self._config.output_batch_bytes

    async def flush(self, hold: Hold) -> None:
        """Make output durable that waits."""
        for said in list(self._said.values()):
            if said:
                await self._store(hold, said)

    async def _store(self, hold: Hold, said: Said) -> None:
        live = self._live.get(said.seq)
        over = next((each for each in self.over if each.entry.seq == said.seq), None)
        background = (live is None and over is None) or (live is not None and live.again)
        await self._services.durably(
            lambda: self._ledger.append_output(
                hold,
                said.seq,
                said.attempt,
                said.records,
                background=background,
                skipped_bytes=said.skipped_bytes,
            )
        )
        said.clear()

    def last_records(self, seq: int) -> list[OutputRecord] | None:
        """What of a command's output can be committed with its end; None if none waits, or not all of it can be."""
        said = self._said.get(seq)
        return said.records if said and not said.skipped_bytes else None

    def stored(self, seq: int) -> None:
        """What waited of a command's output was committed."""
        said = self._said.get(seq)
        if said is not None:
            said.clear()

    # Clocks.

    @property
    def foreground(self) -> list[Running]:
        """Those that somebody waits for."""
        return [each.running for each in self._live.values() if each.entry.is_awaited and not each.again]

    @property
    def background(self) -> list[int]:
        """Seqs of those that nobody waits for."""
        return [seq for seq, each in self._live.items() if not each.entry.is_awaited]

    @property
    def any_being_ended(self) -> bool:
        """Whether any is being ended because its time is over."""
        return any(each.running.ended_by is not None for each in self._live.values())

    @property
    def any_live(self) -> bool:
        """Whether any runs."""
        return bool(self._live)

    def awaits(self, position: int | None = None) -> bool:
        """Whether a replayed one still runs that had ended before `position` was started, or (None) at all."""
        return any(
            each.is_replayed
            and (position is None or each.entry.ended_behind is None or each.entry.ended_behind < position)
            for each in self._live.values()
        )

    @property
    def replaying(self) -> list[int]:
        """Those that run again as they did, and have not ended yet."""
        return [seq for seq, each in self._live.items() if each.is_replayed]

    def due_at(self, now: float) -> float | None:
        """When a step is due for one of them, if nothing changes."""
        due = min((each.running.due_at(now) for each in self._live.values()), default=float("inf"))
        return None if due == float("inf") else due

    async def escalate(self, now: float) -> None:
        """Take the steps that end those whose time is over. Raises `ProcessDied` when nothing helped."""
        for live in list(self._live.values()):
            step = live.running.due(now)
            if step is None:
                continue
            if step == "remove":
                raise ProcessDied("a command did not end when it was killed, and its sandbox was removed")
            try:
                sign = CommandSignal(STEP_SIGNALS[step], session=True)
                await self._attached.sandbox.signal_command(None, live.running.seq, sign)
            except SandboxDied as error:
                raise ProcessDied(str(error)) from error
            except SandboxError as error:
                log.warning("A step was not taken", action=step, seq=live.running.seq, error=str(error))

    def pause(self, now: float) -> None:
        """Stop all clocks."""
        for live in self._live.values():
            live.running.pause(now)

    def start(self, now: float) -> None:
        """Let all clocks run (again)."""
        for live in self._live.values():
            live.running.start(now)

    def point(self, now: float) -> tuple[RunningCommand, ...]:
        """Those that run, as a snapshot has them that is taken now; what they said must be durable, or unheard."""
        found = []
        for seq, live in self._live.items():
            said = self._said.get(seq)
            said_bytes = 0 if said is None else said.heard_bytes
            found.append(
                RunningCommand(
                    seq=seq,
                    attempt=live.running.attempt,
                    used_seconds=live.running.used_seconds(now),
                    output_offset=said_bytes + self._ahead.get(seq, 0),
                    said_bytes=said_bytes,
                    background=not live.entry.is_awaited,
                    again=live.again,
                )
            )
        return tuple(found)

    def clocks(self, guest_seconds: dict[int, float]) -> tuple[CommandClock, ...]:
        """What a successor must know of those that run, by what the guest says of their times."""
        now = self._loop.time()
        return tuple(
            CommandClock(seq, live.running.used_seconds(now), guest_seconds.get(seq, 0.0), self._ahead.get(seq, 0))
            for seq, live in self._live.items()
        )


def _numbers(entry: Entry) -> tuple[int, int]:
    if entry.seq is None or entry.position is None:
        raise ValueError(f"entry {entry.id} is no command that was started")
    return entry.seq, entry.position


def _patient(entry: Entry, limit_seconds: float) -> Entry:
    """With more time than it took: a host that is slower than the first time must not end what ended by itself."""
    took_seconds = 0.0 if entry.result is None else entry.result.runtime_ms / 1000
    return replace(entry, timeout_seconds=min(2 * max(entry.timeout_seconds, took_seconds) + 5, limit_seconds))
