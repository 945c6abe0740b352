"""The fourth part of the protocol: what changes of files write, beside the ledger, and when it may go.

That changes are logged and made in their order is the first part's matter. README.md says which function of the code
has each condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from docs.protocol.checker import Step

NONE: Final = -1
Contents = frozenset[int]
NOTHING: Final[Contents] = frozenset()


class Condition(Enum):
    """What the code heeds. The model can leave out one, to show that it is needed."""

    CONTENT_FIRST = "what a change writes is on the disk before the change is in the log"
    IN_USE_KEPT = "what is being written, or waits to be in the log, is not looked at by the sweep"
    SWEEP_LISTS_FIRST = "what no row refers to is looked for in a list of the disk that is older than the rows"
    TWO_SNAPSHOTS = "what was written is given up only when the two newest snapshots have it"
    GONE_IS_REFUSED = "a point is refused that would need what was given up"
    CARRIED_OVER = "a change that a recovery leaves behind is in the log once more, with what it writes"
    FORK_REFERS_TOO = "a fork refers to what the changes that it replays have written"
    FORK_TAIL_THERE = "a fork is refused if something that it replays was given up since its point was found"


class Change(NamedTuple):
    """A row: where it is in the order, and what it writes."""

    position: int
    content: int
    left: bool = False
    """A rollback, or a recovery, has left it behind."""
    gone: bool = False
    """What it has written was given up."""


class Forker(NamedTuple):
    """A fork under way: its snapshot's position, and the rows that it is to replay."""

    begin: int
    tail: tuple[int, ...]


class State(NamedTuple):
    """Rows, the disk, and what is under way."""

    rows: tuple[Change, ...] = ()
    there: bool = True
    """Whether the machine is there, which may be deleted."""
    fork: tuple[Change, ...] = ()
    disk: Contents = NOTHING
    snapshots: tuple[int, ...] = ()
    """Positions of those in which nothing ran, newest first: the first is the head."""
    written: int = 0
    writing: int = NONE
    """Content that is on the disk, or coming there, and kept for whoever writes it."""
    stored: bool = False
    logged: bool = False
    """The change that writes it is in the log."""
    answered: Contents = NOTHING
    """What clients were told to be written, and have not gone back before."""
    forker: Forker | None = None
    forked: bool = False
    old: int = 0
    """So many rows are old enough to be given up."""
    listed: Contents | None = None
    referred: Contents | None = None
    """The same without `SWEEP_LISTS_FIRST`: the rows that the sweep saw."""
    may_lose: bool = True
    """No snapshot was lost yet, and there was no rollback, behind which there may be one only."""
    harms: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    changes: int
    harms: int
    """Deaths, rollbacks, a head that cannot be read, recoveries that leave things behind."""
    forks: bool = False
    """A fork is made, once, and the machine may be deleted."""


class Kept:
    """One machine, a fork of it, and one server; `without` one of the conditions."""

    def __init__(self, size: Size, without: Condition | None = None) -> None:
        self._size = size
        self._without = without

    # What the checker asks.

    def initial(self) -> list[State]:
        """A new machine."""
        return [State(harms=self._size.harms)]

    def steps(self, state: State) -> Iterator[Step[State]]:
        """All that can happen next."""
        yield from self._writing(state)
        yield from self._sweeping(state)
        if state.there:
            yield from self._saving(state)
            if self._size.forks:
                yield from self._forking(state)
                yield Step("the machine is deleted", _deleted(state), True)
        if state.harms and state.there:
            yield from self._harms(state._replace(harms=state.harms - 1))

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks."""
        if state.there and not state.answered <= {change.content for change in state.rows if not change.left}:
            return "a change that was answered is in nothing that comes later"
        for change in _behind(state.rows, _head(state)):
            if change.gone or change.content not in state.disk:
                return f"the change at {change.position} cannot be made again"
        for change in state.fork:
            if change.gone or change.content not in state.disk:
                return f"the change at {change.position} cannot be made again in the fork"
        return None

    def settled(self, state: State) -> bool:
        """Nothing is under way, and the disk has what rows refer to and nothing else."""
        return state.writing == NONE and state.forker is None and state.disk == self._referred(state)

    # Changes.

    def _writing(self, state: State) -> Iterator[Step[State]]:
        content = state.writing
        if content == NONE:
            if state.written < self._size.changes and state.there:
                begun = state._replace(writing=state.written, written=state.written + 1)
                yield Step(f"{state.written} begins to arrive", begun)
            return
        if not state.stored:
            yield Step(f"{content} is on the disk", state._replace(disk=state.disk | {content}, stored=True))
        is_there = state.stored or self._without is Condition.CONTENT_FIRST
        if is_there and not state.logged and state.there:
            rows = (*state.rows, Change(_next(state), content))
            yield Step(f"{content} is in the log", state._replace(rows=rows, logged=True))
        over = state._replace(writing=NONE, stored=False, logged=False)
        if state.logged:
            yield Step(f"{content} is answered", over._replace(answered=state.answered | {content}))
        else:
            yield Step(f"whoever writes {content} gives up", over)

    # Snapshots, and what is given up.

    def _saving(self, state: State) -> Iterator[Step[State]]:
        newest = max((change.position for change in state.rows if not change.left), default=NONE)
        if newest > _head(state):
            yield Step("it is saved", state._replace(snapshots=(newest, *state.snapshots)[:3]))
        if state.old < len(state.rows):
            yield Step("an hour passes", state._replace(old=len(state.rows)))
        needed = 1 if self._without is Condition.TWO_SNAPSHOTS else 2
        floor = state.snapshots[needed - 1] if len(state.snapshots) >= needed else NONE
        for number, change in enumerate(state.rows[: state.old]):
            if not change.gone and change.position <= floor:
                rows = (*state.rows[:number], change._replace(gone=True), *state.rows[number + 1 :])
                yield Step(f"what {change.position} has written is given up", state._replace(rows=rows))

    def _sweeping(self, state: State) -> Iterator[Step[State]]:
        kept = NOTHING if self._without is Condition.IN_USE_KEPT else frozenset({state.writing})
        found = state.disk - kept
        if self._without is Condition.SWEEP_LISTS_FIRST:
            if state.referred is None:
                yield Step("the rows are read", state._replace(referred=self._referred(state)))
            else:
                after = state._replace(disk=state.disk - (found - state.referred), referred=None)
                yield Step("what is none of theirs is removed", after)
        elif state.listed is None:
            yield Step("the disk is listed", state._replace(listed=found))
        else:
            unreferred = state.listed - self._referred(state)
            yield Step("what no row refers to is removed", state._replace(disk=state.disk - unreferred, listed=None))

    def _referred(self, state: State) -> Contents:
        forks = () if self._without is Condition.FORK_REFERS_TOO else state.fork
        return frozenset(change.content for change in (*state.rows, *forks) if not change.gone)

    # Forks.

    def _forking(self, state: State) -> Iterator[Step[State]]:
        forker = state.forker
        if forker is None:
            if not state.forked:
                for begin in (NONE, *state.snapshots):
                    tail = tuple(
                        number for number, one in enumerate(state.rows) if one.position > begin and not one.left
                    )
                    if not any(state.rows[number].gone for number in tail):
                        found = state._replace(forker=Forker(begin, tail), forked=True)
                        yield Step(f"a fork of {begin}, and what came since, begins", found)
            return
        changes = [state.rows[number] for number in forker.tail]
        if any(change.gone for change in changes) and self._without is not Condition.FORK_TAIL_THERE:
            yield Step("the fork is refused", state._replace(forker=None))
            return
        copies = tuple(change._replace(left=False) for change in changes)
        yield Step("the fork is made", state._replace(forker=None, fork=copies))

    # What the world does.

    def _harms(self, state: State) -> Iterator[Step[State]]:
        dead = state._replace(writing=NONE, stored=False, logged=False, listed=None, referred=None, forker=None)
        yield Step("the server dies", dead, True)
        head = _head(state)
        lost = _behind(state.rows, head)
        if lost:
            left = tuple(one._replace(left=one.left or one.position > head) for one in state.rows)
            position = _next(state)
            again = [one._replace(position=position + number) for number, one in enumerate(lost)]
            rows = left if self._without is Condition.CARRIED_OVER else (*left, *again)
            yield Step("a recovery leaves behind what is not saved", state._replace(rows=rows), True)
        if state.snapshots and state.may_lose:
            yield Step("the head cannot be read", state._replace(snapshots=state.snapshots[1:], may_lose=False), True)
        if not lost and state.writing == NONE:  # it is asleep
            for point in state.rows:
                if not point.left and point.position < head:
                    yield from self._rolled_back(state, point.position)

    def _rolled_back(self, state: State, position: int) -> Iterator[Step[State]]:
        kept = tuple(one for one in state.snapshots if one <= position)
        begin = kept[0] if kept else NONE
        tail = [one for one in _behind(state.rows, begin) if one.position <= position]
        if any(one.gone for one in tail) and self._without is not Condition.GONE_IS_REFUSED:
            return
        rows = tuple(one._replace(left=one.left or one.position > position) for one in state.rows)
        answered = state.answered & {one.content for one in rows if not one.left}
        after = state._replace(rows=rows, snapshots=kept, answered=answered, may_lose=False)
        yield Step(f"a rollback to {position}", after, True)


def _deleted(state: State) -> State:
    return state._replace(there=False, rows=(), snapshots=(), forker=None, old=0)


def _head(state: State) -> int:
    return state.snapshots[0] if state.snapshots else NONE


def _next(state: State) -> int:
    return 1 + max((change.position for change in state.rows), default=NONE)


def _behind(rows: tuple[Change, ...], position: int) -> list[Change]:
    """What a replay from there makes again."""
    return [change for change in rows if change.position > position and not change.left]
