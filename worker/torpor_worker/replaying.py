"""Re-execution of the log behind a snapshot."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field

from torpor_worker import results
from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.config import WorkerConfig
from torpor_worker.instruction import Running
from torpor_worker.ledger import EndedBy, Entry, EntryKind, InstructionResult
from torpor_worker.sandbox import Result

LEAST_SECONDS = 5.0
"""An entry is given so much time at least, however little is left: it may be slower than it was."""


@dataclass(slots=True)
class Replay:
    """What one replay did, and how far it came."""

    position: int
    """The highest position that was applied, or left out for good."""
    replayed: list[int] = field(default_factory=list)
    differed: list[int] = field(default_factory=list)
    effects_lost: list[int] = field(default_factory=list)
    """Ended by time-out or interrupt, and never run again."""
    unfinished: Entry | None = None
    """The started entry at the end of the log that has no result, and does not run in the snapshot."""
    suspect: int | None = None
    """The seq that was being executed, or just had been, when its process died."""
    applied: bool = False
    """Whether anything at all was done or left out."""
    run_seconds: float = 0.0
    """How long entries have run."""
    stopped: bool = False
    """It took longer than it may: what lies behind `position` was not applied."""


class Replayer:
    """Sends finished entries again, in order and marked, and compares their results."""

    def __init__(
        self,
        attached: Attached,
        bell: Bell,
        config: WorkerConfig,
        *,
        careful: bool,
        run_seconds: float = float("inf"),
        bounded_behind: int = -1,
    ) -> None:
        """Careful: each entry is given some time to bring its process down before the next is sent.

        After so much running time it is stopped, though not before what lies up to a position was applied.
        """
        self._run_seconds = run_seconds
        self._bounded_behind = bounded_behind
        self._attached = attached
        self._bell = bell
        self._config = config
        self._careful = careful
        self._loop = asyncio.get_running_loop()

    async def go_on_with(self, entry: Entry, used_seconds: float, replay: Replay) -> None:
        """Await the end of a finished instruction in the middle of which the snapshot was taken."""
        running = self._running(entry, used_seconds)
        replay.suspect = entry.seq
        replay.applied = True
        if entry.ended_by is None:
            await self._compare(entry, running, replay)
        else:
            running.stop(EndedBy.INTERRUPT, self._loop.time())
            await self._result(running)
            replay.effects_lost.append(running.seq)
        replay.suspect = None

    async def apply(self, entries: list[Entry], replay: Replay) -> None:
        """Apply started entries in order of position. Raises `ProcessDied` and `SandboxError`."""
        for entry in entries:
            if entry.position is None:
                raise ValueError(f"entry {entry.id} was not started")
            if entry.position > self._bounded_behind and replay.run_seconds >= self._run_seconds:
                replay.stopped = True
                return
            replay.applied = True
            if entry.kind is EntryKind.RESEED:
                await self._attached.sandbox.reseed(entry.position, entry.seed)
            elif entry.result is None:
                replay.unfinished = entry
                return
            elif not entry.undone and entry.ended_by is not None and entry.seq is not None:
                replay.effects_lost.append(entry.seq)
            elif not entry.undone:
                replay.suspect = entry.seq
                is_bounded = entry.position > self._bounded_behind
                left_seconds = max(LEAST_SECONDS, self._run_seconds - replay.run_seconds)
                running = self._running(entry, 0.0, left_seconds if is_bounded else float("inf"))
                await self._attached.sandbox.execute(entry.position, running.seq, entry.code, replaying=True)
                await self._compare(entry, running, replay)
                if self._careful:
                    await self._settle()
                replay.suspect = None
            replay.position = entry.position

    def _running(self, entry: Entry, used_seconds: float, limit_seconds: float = float("inf")) -> Running:
        # A host that is slower than the first time must not end what ended by itself.
        patient = dataclasses.replace(entry, timeout_seconds=min(2 * entry.timeout_seconds + 5, limit_seconds))
        return Running(patient, entry.attempt, self._config, used_seconds=used_seconds)

    async def _compare(self, entry: Entry, running: Running, replay: Replay) -> None:
        again = await self._result(running)
        replay.run_seconds += running.used_seconds(self._loop.time())
        replay.replayed.append(running.seq)
        if entry.result is None or not results.same(entry.result, again):
            replay.differed.append(running.seq)

    async def _result(self, running: Running) -> InstructionResult:
        running.start(self._loop.time())
        while True:
            said_something = False
            while (event := self._attached.next()) is not None:
                said_something = True
                if isinstance(event, Result) and event.seq == running.seq:
                    await self._attached.acknowledge()
                    return results.answered(event, running)
            if said_something:
                await self._attached.acknowledge()
            now = self._loop.time()
            await self._attached.escalate(running, now)
            await self._bell.wait(running.due_at(now))

    async def _settle(self) -> None:
        await self._attached.sandbox.ping()
        end = self._loop.time() + self._config.settle_seconds
        while self._loop.time() < end:
            while self._attached.next() is not None:
                pass
            await self._bell.wait(end)
        while self._attached.next() is not None:
            pass
