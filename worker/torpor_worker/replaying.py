"""Re-execution of the log behind a snapshot.

Conditions of docs/protocol: UNDONE_LEFT_OUT, ENDS_FIRST, NOTHING_ELSE_FIRST, ANOTHER_FUTURE, READ_AGAIN.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from torpor_worker import results
from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.bodies import Bodies
from torpor_worker.changing import Loss, make_again
from torpor_worker.commands import Commands
from torpor_worker.config import WorkerConfig
from torpor_worker.handing_in import HandingIn
from torpor_worker.instruction import Running
from torpor_worker.ledger import EndedBy, Entry, EntryKind, Hold, Ledger
from torpor_worker.sandbox import CommandEnded, CommandOutput, PackagesWanted, Result

LEAST_SECONDS = 5.0
"""An entry is given so much time at least, however little is left: it may be slower than it was."""
COME_AS_FAR_SECONDS = 2.0
"""How long a command that is started again is waited for until it has said as much as it had."""
FROM_BEGINNING = "from its beginning"
FROM_MIDDLE = "from the middle of it"


@dataclass(slots=True)
class Replay:
    """What one replay did, and how far it came."""

    position: int
    """The highest position that was applied, or left out for good."""
    replayed: list[int] = field(default_factory=list)
    differed: list[int] = field(default_factory=list)
    effects_lost: list[int] = field(default_factory=list)
    """Ended by time-out, interrupt or signal, and never run again."""
    ran_again: dict[int, str] = field(default_factory=dict)
    """Commands without an end that run again, and from where."""
    rest: list[Entry] = field(default_factory=list)
    """What begins with a started instruction that has no result: it is sent as it would have been, in its order."""
    losses: list[Loss] = field(default_factory=list)
    """Changes of files that could not be made again."""
    suspect_change: Entry | None = None
    """The change of files that was being made when its process died."""
    suspect: int | None = None
    """The seq that was being executed, or just had been, when its process died."""
    applied: bool = False
    """Whether anything at all was done or left out."""
    run_seconds: float = 0.0
    """How long entries have run."""
    stopped: bool = False
    """It took longer than it may: what lies behind `position` was not applied."""


class Replayer:
    """Sends finished entries again, in order and marked, and compares their results.

    Commands run beside each other and beside instructions, as they did: an entry is sent once all that had ended
    before it was started has ended again.
    """

    def __init__(
        self,
        attached: Attached,
        bell: Bell,
        config: WorkerConfig,
        commands: Commands,
        ledger: Ledger,
        hold: Hold,
        *,
        careful: bool,
        sent: int | None = None,
        bodies: Bodies | None = None,
        handing_in: HandingIn | None = None,
        run_seconds: float = float("inf"),
        bounded_behind: int = -1,
    ) -> None:
        """Careful: each entry is given some time to bring its process down before the next is sent.

        After so much running time it is stopped, though not before what lies up to a position was applied. `sent` is
        the highest position that the last process was sent, if that is known: no attempt was made at what lies behind.
        """
        self._run_seconds = run_seconds
        self._bounded_behind = bounded_behind
        self._attached = attached
        self._bell = bell
        self._config = config
        self._commands = commands
        self._ledger = ledger
        self._hold = hold
        self._careful = careful
        self._sent = sent
        self._bodies = bodies
        self._handing_in = handing_in
        self._loop = asyncio.get_running_loop()
        self._entry: Entry | None = None
        """The instruction that runs."""
        self._running: Running | None = None
        self._discarded = False
        """Its result is not compared: its effects are lost."""
        self._waits = False
        """It waits for packages that lie behind it in the log."""

    async def go_on_with(self, entry: Entry, used_seconds: float, replay: Replay) -> None:
        """Take up a finished instruction in the middle of which the snapshot was taken."""
        replay.applied = True
        self._begin(entry, self._patient(entry, used_seconds), replay)
        if entry.ended_by is not None and self._running is not None:
            self._running.stop(EndedBy.INTERRUPT, self._loop.time())
            self._discarded = True

    async def apply(self, entries: list[Entry], replay: Replay) -> None:
        """Apply started entries in order of position. Raises `ProcessDied` and `SandboxError`."""
        for number, entry in enumerate(entries):
            if entry.position is None:
                raise ValueError(f"entry {entry.id} was not started")
            await self._until_ended_before(entry, replay)
            takes_time = entry.kind is not EntryKind.FILE and entry.position > self._bounded_behind
            if takes_time and self._used_seconds(replay) >= self._run_seconds:
                replay.stopped = True
                break
            replay.applied = True
            if entry.kind is EntryKind.EXECUTE and entry.result is None:
                replay.rest = entries[number:]
                break
            await self._apply(entry, replay)
            replay.position = entry.position
        if not replay.rest:  # which may be what ends the others
            await self._until_ended_before(None, replay)
        replay.run_seconds = self._used_seconds(replay)
        replay.replayed = sorted([*replay.replayed, *self._commands.replayed, *self._commands.replaying])
        replay.differed = sorted([*replay.differed, *self._commands.differed])
        replay.effects_lost = sorted([*replay.effects_lost, *self._commands.effects_lost])

    async def _apply(self, entry: Entry, replay: Replay) -> None:
        position = -1 if entry.position is None else entry.position
        left_seconds = float("inf")
        if position > self._bounded_behind:
            left_seconds = max(LEAST_SECONDS, self._run_seconds - self._used_seconds(replay))
        if entry.kind is EntryKind.RESEED:
            await self._attached.sandbox.reseed(position, entry.seed)
        elif entry.kind is EntryKind.FILE:
            replay.suspect_change = entry
            replay.losses += await make_again(self._attached.sandbox, self._bodies, entry)
            replay.suspect_change = None
        elif entry.kind is EntryKind.INPUT:
            await self._attached.feed(entry)
        elif entry.target is not None:
            await self._commands.tell(entry)
        elif entry.result is None:
            await self._start_again(entry, replay)
        elif entry.undone or entry.seq is None:
            return
        elif entry.ended_by is not None:
            replay.effects_lost.append(entry.seq)
        elif entry.kind is EntryKind.COMMAND:
            replay.suspect = entry.seq
            await self._commands.begin_again(self._hold, entry, left_seconds)
            await self._shown(replay)
        else:
            self._begin(entry, self._patient(entry, 0.0, left_seconds), replay)
            await self._attached.sandbox.execute(position, entry.seq, entry.code, replaying=True, stdin=entry.stdin)
            if self._careful and not (entry.stdin is not None and entry.stdin.open):  # its answers come behind it
                await self._until(lambda: self._running is None or self._waits, replay)
            await self._shown(replay)

    async def _start_again(self, entry: Entry, replay: Replay) -> None:
        """Start a command that has no end: what it says and how it ends is new."""
        if entry.seq is None:
            raise ValueError(f"entry {entry.id} has no seq")
        attempt, said_bytes = max(entry.attempt, 1), 0
        if self._sent is None or entry.position is None or entry.position <= self._sent:
            said_bytes = await self._ledger.output_given(self._hold, entry.seq, attempt)
            attempt = await self._ledger.count_attempt(self._hold, entry.seq, 0)
            replay.ran_again[entry.seq] = FROM_BEGINNING
        replay.suspect = entry.seq
        await self._commands.begin(entry, attempt)
        # What came later may have needed it, as far as it had come: a server must listen before it is called.
        await self._until(
            lambda: self._commands.has_said(entry.seq, said_bytes), replay, self._loop.time() + COME_AS_FAR_SECONDS
        )
        await self._shown(replay)

    async def _shown(self, replay: Replay) -> None:
        """Give what was sent its time to bring the process down, if need be."""
        if self._careful:
            await self._attached.sandbox.ping()
            await self._hear_until(self._loop.time() + self._config.settle_seconds, replay)
        if self._running is None:
            replay.suspect = None

    def _begin(self, entry: Entry, running: Running, replay: Replay) -> None:
        self._entry, self._running, self._discarded, self._waits = entry, running, False, False
        replay.suspect = entry.seq
        running.start(self._loop.time())

    def _patient(self, entry: Entry, used_seconds: float, limit_seconds: float = float("inf")) -> Running:
        # A host that is slower than the first time must not end what ended by itself.
        patient = dataclasses.replace(entry, timeout_seconds=min(2 * entry.timeout_seconds + 5, limit_seconds))
        return Running(patient, entry.attempt, self._config, used_seconds=used_seconds)

    def _used_seconds(self, replay: Replay) -> float:
        return replay.run_seconds + self._commands.run_seconds

    async def _until_ended_before(self, entry: Entry | None, replay: Replay) -> None:
        """Wait until all has ended again that had ended before an entry was started; None: all that has an end."""
        position = None if entry is None else entry.position
        next_one = entry is None or entry.kind is EntryKind.EXECUTE

        def is_over() -> bool:
            running = self._entry
            instruction_is_over = running is None or not (
                next_one or running.ended_behind is None or (position is not None and running.ended_behind < position)
            )
            return instruction_is_over and not self._commands.awaits(position)

        await self._until(is_over, replay)

    async def _until(self, condition: Callable[[], bool], replay: Replay, until: float | None = None) -> None:
        while not condition():
            await self._hear(replay)
            now = self._loop.time()
            if condition() or (until is not None and now >= until):
                return
            await self._escalate(now)
            times = (self._due_at(now), until)
            await self._bell.wait(min((at for at in times if at is not None), default=None))

    async def _hear_until(self, end: float, replay: Replay) -> None:
        while (now := self._loop.time()) < end:
            await self._hear(replay)
            await self._escalate(now)
            due_at = self._due_at(now)
            await self._bell.wait(end if due_at is None else min(end, due_at))
        await self._hear(replay)

    async def _escalate(self, now: float) -> None:
        if self._running is not None:
            await self._attached.escalate(self._running, now)
        await self._commands.escalate(now)

    def _due_at(self, now: float) -> float | None:
        times = (None if self._running is None else self._running.due_at(now), self._commands.due_at(now))
        return min((at for at in times if at is not None), default=None)

    async def _hear(self, replay: Replay) -> None:
        """Take all that waits. Output of what is replayed is in the log, that of commands that go on is stored."""
        said_something = False
        while (event := self._attached.next()) is not None:
            said_something = True
            if isinstance(event, Result) and self._running is not None and event.seq == self._running.seq:
                self._compare(event, self._running, replay)
            elif isinstance(event, CommandOutput | CommandEnded):
                await self._commands.hear(self._hold, event)
            elif isinstance(event, PackagesWanted):
                await self._packages_wanted(event)
        if said_something:
            await self._commands.flush(self._hold)
            await self._attached.acknowledge()

    async def _packages_wanted(self, ask: PackagesWanted) -> None:
        """What has its result is given what it was given then; what has none may be given something new."""
        if self._handing_in is None:
            return
        sandbox = self._attached.sandbox
        if any(entry.result is not None for entry in await self._ledger.entries(self._hold, [ask.seq])):
            self._waits = await self._handing_in.wanted_again(self._hold, sandbox, ask)
        else:
            self._handing_in.wanted(self._hold, sandbox, ask)

    def _compare(self, result: Result, running: Running, replay: Replay) -> None:
        entry = self._entry
        if entry is None:
            raise RuntimeError("nothing runs")
        again = results.answered(result, running)
        self._entry = self._running = None
        if self._discarded:
            replay.effects_lost.append(running.seq)
        else:
            replay.run_seconds += running.used_seconds(self._loop.time())
            replay.replayed.append(running.seq)
            if entry.result is None or not results.same(entry.result, again):
                replay.differed.append(running.seq)
        if not self._careful:
            replay.suspect = None
