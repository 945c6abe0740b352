"""How a machine's process is taken over that has outlived its worker: nothing is guessed, and nothing replayed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.ledger import Entry, EntryKind, Hold
from torpor_worker.sandbox import GuestState, Limits, Output, SandboxError
from torpor_worker.services import Services
from torpor_worker.survivors import CommandClock, ProcessFacts, Survivor

log = structlog.get_logger(__name__)


class Misfit(Exception):
    """What is known of a process does not agree with the log: it is removed, and the machine recovered."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A process that was taken over, and where it is."""

    facts: ProcessFacts
    running: Entry | None = None
    """The instruction that it was sent and that has no result in the log."""
    used_seconds: float = 0.0
    commands: tuple[tuple[Entry, CommandClock], ...] = ()
    """Commands that it runs, or whose end it has not been heard of, with their used time and where they stand."""
    position: int = -1
    """The highest position that it was sent, or that was left out."""
    first_seq: int | None = None
    """The first instruction that it was sent by its worker, if there is one."""
    last: Entry | None = None
    """The last one that it was sent by its worker and that is finished."""
    capture_first: bool = False
    background: bool = False
    """Whether threads, children or tasks of the user's live."""

    @property
    def last_seq(self) -> int:
        """The last instruction that it can have said anything of, -1 for none."""
        seqs = [entry.seq for entry in (self.running, self.last) if entry is not None and entry.seq is not None]
        if self.facts.origin is not None:
            seqs.append(self.facts.origin.seq)
        return max(seqs, default=-1)


def judge(
    hold: Hold,
    facts: ProcessFacts,
    state: GuestState,
    entries: list[Entry],
    earlier: list[Entry],
    *,
    was_frozen: bool,
) -> Adoption:
    """Where a process is, by what was written down of it, what it says, and the log. Raises `Misfit`.

    `entries`: the started ones above `facts.position`. `earlier`: those up to it that have no end, or that it says it
    runs; they came with the snapshot that it was brought back from.
    """
    if facts.machine != hold.machine or facts.line != hold.line or facts.epoch >= hold.epoch:
        raise Misfit("the machine has changed hands, or was rolled back")
    position = max(facts.position, state.last_position)
    if state.last_position > max((_position(entry) for entry in entries), default=facts.position):
        raise Misfit("it has received more than the log has")
    begun = [entry for entry in entries if _position(entry) <= position]
    if any(entry.undone and entry.kind is not EntryKind.FILE for entry in begun):
        raise Misfit("it was sent an instruction that was undone")
    instructions = [entry for entry in [*earlier, *begun] if entry.kind is EntryKind.EXECUTE]
    running = next((entry for entry in instructions if entry.result is None), None)
    if running is not None and running is not instructions[-1]:
        raise Misfit("it was sent an instruction after one without a result")
    if state.running is not None and (running is None or running.seq != state.running):
        raise Misfit(f"it runs instruction {state.running}, which the log does not")
    behind = [entry for entry in entries if _position(entry) > position]
    if any(entry.result is not None and not entry.undone for entry in behind):
        raise Misfit("it was not sent what the log has")
    if running is not None and any(entry.kind is EntryKind.EXECUTE for entry in behind):
        raise Misfit("it was not sent an instruction that was started after the one that it runs")
    known = [entry for entry in [*earlier, *begun] if entry.kind is EntryKind.COMMAND]
    runs = dict(state.commands or {})
    if missing := set(runs) - {entry.seq for entry in known}:
        raise Misfit(f"it runs command {min(missing)}, which the log does not")
    finished = [entry for entry in begun if entry.kind is EntryKind.EXECUTE and entry is not running]
    head = -1 if hold.head is None else hold.head.position
    ended = [entry for entry in begun if entry.ended_by is not None and _position(entry) > head]
    return Adoption(
        facts=facts,
        running=running,
        used_seconds=_used_seconds(facts, state, running, was_frozen=was_frozen),
        commands=tuple(
            (entry, _command_clock(facts, entry.seq, runs, was_frozen=was_frozen))
            for entry in known
            if entry.seq is not None and (entry.result is None or entry.seq in runs)
        ),
        position=position,
        first_seq=next((entry.seq for entry in begun if entry.kind is EntryKind.EXECUTE), None),
        last=finished[-1] if finished else None,
        capture_first=bool(ended),
        background=state.background,
    )


def _position(entry: Entry) -> int:
    if entry.position is None:
        raise ValueError(f"entry {entry.id} was not started")
    return entry.position


def _used_seconds(facts: ProcessFacts, state: GuestState, running: Entry | None, *, was_frozen: bool) -> float:
    """Of the running instruction's time; what has its result already is given none."""
    if running is None or running.seq != state.running:
        return 0.0
    clock = facts.clock
    if clock is None or clock.seq != running.seq:
        return state.running_seconds
    if was_frozen:
        return clock.used_seconds
    return clock.used_seconds + max(0.0, state.running_seconds - clock.guest_seconds)


def _command_clock(facts: ProcessFacts, seq: int, runs: dict[int, float], *, was_frozen: bool) -> CommandClock:
    """A command's used time, and where its output goes; what has ended is given no time."""
    guest_seconds = runs.get(seq, 0.0)
    known = next((clock for clock in facts.commands if clock.seq == seq), None)
    if known is None:
        return CommandClock(seq, guest_seconds, guest_seconds)
    since_seconds = 0.0 if was_frozen else max(0.0, guest_seconds - known.guest_seconds)
    return replace(known, used_seconds=known.used_seconds + since_seconds)


class Durable:
    """Leaves out of a guest's output what the ledger has: a guest says again what nobody has acknowledged."""

    def __init__(self, hold: Hold, services: Services, adoption: Adoption) -> None:
        self._hold = hold
        self._ledger = services.ledger
        self._adoption = adoption
        self._ends: dict[int, int] = {}
        """Up to where the ledger has a seq's output, as the guest counts."""

    async def rest(self, output: Output) -> Output:
        """What of a piece of output is not durable; empty if all of it is."""
        if output.seq is None or output.offset is None or output.seq > self._adoption.last_seq:
            return output
        if output.seq not in self._ends:
            self._ends[output.seq] = await self._end(output.seq)
        known_bytes = min(self._ends[output.seq] - output.offset, len(output.data))
        if known_bytes <= 0:
            return output
        return replace(output, data=output.data[known_bytes:], offset=output.offset + known_bytes)

    async def _end(self, seq: int) -> int:
        adoption = self._adoption
        origin = adoption.facts.origin
        if adoption.first_seq is not None and seq >= adoption.first_seq:
            entries = await self._ledger.behind(self._hold, adoption.facts.position)
            attempt = next((entry.attempt for entry in entries if entry.seq == seq), 1)
            return await self._ledger.output_given(self._hold, seq, attempt)
        if origin is not None and origin.seq == seq:
            return await self._ledger.output_given(self._hold, seq, origin.attempt) - origin.ahead_bytes
        return 0  # nothing was written down, so nothing that this process said of it was stored


async def adopt(hold: Hold, survivor: Survivor, services: Services, bell: Bell) -> tuple[Attached, Adoption] | None:
    """Take a process over; None if that cannot be: then it is removed."""
    try:
        adopted = await services.host.adopt(survivor, Limits(memory_bytes=hold.memory_bytes))
    except SandboxError as error:
        _refused(hold, str(error))
        return None
    try:
        facts, state = survivor.facts, adopted.state
        entries = await services.ledger.behind(hold, facts.position)
        running = [] if state.running is None else [state.running]
        earlier = {entry.id: entry for entry in await services.ledger.unfinished(hold)}
        said = await services.ledger.entries(hold, [*running, *(state.commands or {})])
        earlier |= {entry.id: entry for entry in said}
        adoption = judge(
            hold,
            facts,
            state,
            entries,
            [one for one in earlier.values() if one.position is not None and one.position <= facts.position],
            was_frozen=adopted.was_frozen,
        )
    except Misfit as misfit:
        await adopted.sandbox.destroy()
        _refused(hold, str(misfit))
        return None
    except BaseException:
        await asyncio.shield(adopted.sandbox.destroy())
        raise
    return Attached(adopted.sandbox, bell, hold.machine, Durable(hold, services, adoption)), adoption


def _refused(hold: Hold, reason: str) -> None:
    log.warning("A machine's process could not be taken over", action="adopt", machine=hold.machine, error=reason)
