"""The third part of the protocol: what runs beside an instruction, and what is given to what runs.

Who holds the machine is the first part's matter: here one server at a time does. README.md says what the parts stand
for, and which function of the code has each condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from docs.protocol.checker import Step

NONE: Final = -1
UNKNOWN: Final = 1 << 20
"""Of what a dead process was sent: all of it, for all that anybody knows."""
ENDED: Final = "ended"
UNDONE: Final = "undone"
GIVEN: Final = "given"
"""Of input: nothing answers it, it is in the log."""
REFUSED: Final = "refused"
LEFT: Final = "rolled back"
Seqs = frozenset[int]
NOTHING: Final[Seqs] = frozenset()


class Kind(Enum):
    """What an entry is."""

    INSTRUCTION = "instruction"
    COMMAND = "command"
    BACKGROUND = "command in the background"
    INPUT = "input"


class Work(NamedTuple):
    """What a client has the machine do."""

    kind: Kind
    target: int = NONE
    """Of input: who reads it. It ends only when it has read all that it is given in the end."""
    waits_for: int = NONE
    """It ends only when this one has begun."""

    def __str__(self) -> str:
        """What it is, in words."""
        target = "" if self.target == NONE else f" for {self.target}"
        return f"{self.kind.value}{target}" + ("" if self.waits_for == NONE else f" that waits for {self.waits_for}")


class Condition(Enum):
    """What the code heeds. The model can leave out one, to show that it is needed."""

    NAMED = "a snapshot names all that runs in it, and a wake listens to that"
    HEARD_IS_COMMITTED = "a process is captured only when the ends that were heard of are committed"
    SAID_UNTIL_COMMITTED = "a guest says again that something has ended, until that is committed"
    ENDS_FIRST = "a replay sends an entry only when all has ended again that had ended before it was started"
    NOTHING_ELSE_FIRST = "a replay waits for no other end before it sends an entry"
    ANOTHER_FUTURE = "a replay does not wait for an end that lies behind the point that was gone back to"
    LEFT_ENDS = "commands that a rollback leaves behind end with it"
    READ_AGAIN = "what was given to what runs is given again, in its place"
    WITH_ITS_CODE = "what is given to an instruction that has not begun comes with its code"
    IN_ITS_TURN = "what waits for no instruction is started at once only if nothing of its kind waits before it"
    UNSENT_WAITS = "a recovery that leaves things behind lets wait what no process was sent, and what is for that"


class Row(NamedTuple):
    """A row of the log."""

    position: int = NONE
    answer: str = ""
    behind: int = NONE
    """The highest position that was started when it ended."""
    left: bool = False
    """A rollback or a recovery has left it behind."""
    again: bool = False
    """It has its end from another future: what runs of it is nobody's."""
    cut: bool = False
    """It is ended by the recovery that left behind what it did."""
    with_code: bool = False
    """Of input: it comes with its reader's code, and has no place of its own."""
    executed: bool = False
    saw: Seqs = NOTHING
    """What had ended when it was started: it may have built on that."""


class Process(NamedTuple):
    """What was sent, what runs, what has ended and what was read; of ends, those that the host is to hear of."""

    received: int = NONE
    running: Seqs = NOTHING
    over: Seqs = NOTHING
    read: tuple[int, ...] = ()
    said: Seqs = NOTHING


class Snapshot(NamedTuple):
    """A process, and what is known to run in it."""

    process: Process
    names: Seqs


class State(NamedTuple):
    """Ledger, worker and process."""

    rows: tuple[Row, ...] = ()
    next_position: int = 0
    alive: bool = True
    """The server."""
    process: Process | None = None
    heard: Seqs = NOTHING
    """Ends that the worker knows of, and that are not committed."""
    listening: Seqs = NOTHING
    """What the worker knows to run."""
    served: bool = False
    """Its process has all that it was behind."""
    ready: bool = False
    asleep: bool = True
    recovering: bool = False
    sent: int = UNKNOWN
    """The highest position that the last process was sent."""
    head: Snapshot | None = None
    older: Snapshot | None = None
    harms: int = 0
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    works: tuple[Work, ...]
    """Accepted in this order, at any time."""
    harms: int
    """Deaths, and rollbacks."""
    forgoes: bool = False
    """The machine's recovery is set to rollback."""

    def __str__(self) -> str:
        """What is done, in words."""
        some = ", ".join(map(str, self.works))
        return f"{some}; harms={self.harms}" + (", forgoes" if self.forgoes else "")


class Beside:
    """One machine and one server at a time; `without` one of the conditions."""

    def __init__(self, size: Size, without: Condition | None = None) -> None:
        self._size = size
        self._without = without

    # What the checker asks.

    def initial(self) -> list[State]:
        """A new machine."""
        return [State(harms=self._size.harms)]

    def steps(self, state: State) -> Iterator[Step[State]]:
        """All that can happen next."""
        if state.broken:
            return
        if len(state.rows) < len(self._size.works):
            yield self._accepted(state)
        yield from self._deaths(state)
        if not state.alive:
            started = state._replace(alive=True)
            yield Step("a server starts", started)
            return
        if state.process is None:
            yield from self._bringing_back(state)
            return
        yield from self._sending(state, state.process)
        yield from self._ends(state, state.process)
        yield from self._saves(state, state.process)

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks."""
        if state.broken or state.process is None or not state.served:
            return state.broken
        process = state.process
        for seq, row in enumerate(state.rows):
            reader = self._work(seq).target
            was_sent = row.answer == GIVEN and not row.left and row.position <= process.received
            if was_sent and reader in process.running and not state.rows[reader].answer and seq not in process.read:
                return f"{seq} was acknowledged, and {reader} never gets it to read"
        return None

    def settled(self, state: State) -> bool:
        """Everything is answered, but for what waits for what was left behind; and the machine is asleep."""
        return (
            state.asleep
            and len(state.rows) == len(self._size.works)
            and all(row.answer or self._starves(state, seq) for seq, row in enumerate(state.rows))
        )

    def _starves(self, state: State, seq: int) -> bool:
        inputs = [row for other, row in enumerate(state.rows) if self._work(other).target == seq]
        return self._work(seq).kind is Kind.BACKGROUND and any(row.left for row in inputs)

    def _work(self, seq: int) -> Work:
        return self._size.works[seq]

    # The log.

    def _accepted(self, state: State) -> Step[State]:
        seq, rows = len(state.rows), state.rows
        work = self._work(seq)
        if work.kind is Kind.INPUT and rows[work.target].answer:
            return Step(f"{seq} is refused", state._replace(rows=(*rows, Row(answer=REFUSED))))
        if work.kind is Kind.INPUT and self._comes_with_code(state, work.target):
            return Step(
                f"{seq} is accepted, with its reader's code",
                state._replace(rows=(*rows, Row(answer=GIVEN, with_code=True))),
            )
        if work.kind is Kind.INSTRUCTION:
            at_once = not any(
                not row.answer for one, row in enumerate(rows) if self._work(one).kind is Kind.INSTRUCTION
            )
        else:
            at_once = not self._waiting_beside(state) or self._without is Condition.IN_ITS_TURN
        after = state._replace(rows=(*rows, Row()))
        if state.ready and at_once:
            return Step(f"{seq} is accepted and started", self._started(after, seq))
        return Step(f"{seq} is accepted", after)

    def _comes_with_code(self, state: State, reader: int) -> bool:
        if self._work(reader).kind is not Kind.INSTRUCTION or state.rows[reader].position != NONE:
            return False
        waits = any(self._work(seq).target == reader for seq in self._waiting_beside(state))
        return not waits and self._without is not Condition.WITH_ITS_CODE

    def _waiting_beside(self, state: State) -> list[int]:
        return [seq for seq in self._waiting(state) if self._work(seq).kind is not Kind.INSTRUCTION]

    def _waiting(self, state: State) -> list[int]:
        return [seq for seq, row in enumerate(state.rows) if row.position == NONE and not row.answer]

    def _started(self, state: State, seq: int) -> State:
        ended = frozenset(one for one, row in enumerate(state.rows) if _has_ended(row))
        answer = GIVEN if self._work(seq).kind is Kind.INPUT else ""
        row = state.rows[seq]._replace(position=state.next_position, answer=answer, saw=ended)
        return _with_row(state, seq, row)._replace(next_position=state.next_position + 1)

    def _unsent(self, state: State, received: int) -> list[int]:
        """What was started and not sent, in order of position."""
        some = [seq for seq, row in enumerate(state.rows) if row.position > received and not row.left]
        return sorted(some, key=lambda seq: state.rows[seq].position)

    # A process is sent its entries.

    def _sending(self, state: State, process: Process) -> Iterator[Step[State]]:
        unsent = self._unsent(state, process.received)
        if unsent:
            if self._may_send(state, process, unsent[0]):
                yield Step(f"{unsent[0]} is sent", self._sent(state, process, unsent[0]))
            return
        if not state.served:
            if any(_has_ended(state.rows[seq]) for seq in process.running):
                return
            yield Step("the process has all that it was behind", state._replace(served=True))
            return
        if not state.ready:
            yield Step("what is accepted is started from now on", state._replace(ready=True))
        runs = any(
            row.position != NONE and not row.answer and self._work(seq).kind is Kind.INSTRUCTION
            for seq, row in enumerate(state.rows)
        )
        waiting = self._waiting_beside(state) if runs else self._waiting(state)
        if waiting:
            yield Step(f"{waiting[0]} is started", self._started(state, waiting[0]))

    def _may_send(self, state: State, process: Process, seq: int) -> bool:
        position = state.rows[seq].position
        for one in process.running:
            row = state.rows[one]
            is_next = self._work(one).kind is self._work(seq).kind is Kind.INSTRUCTION
            if not _has_ended(row):
                continue
            if self._without is Condition.NOTHING_ELSE_FIRST:
                return False
            if (row.behind < position or is_next) and self._without is not Condition.ENDS_FIRST:
                return False
        return True

    def _sent(self, state: State, process: Process, seq: int) -> State:
        row, work = state.rows[seq], self._work(seq)
        process = process._replace(received=row.position)
        after = state._replace(process=process)
        if work.kind is Kind.INPUT:
            is_late = not state.served and self._without is Condition.READ_AGAIN
            if work.target not in process.running or is_late:
                return after  # its guest knows of no such reader: either it has ended, or it never gets this
            return self._read(after, process, (seq,))
        if row.answer not in {"", ENDED} or row.cut:
            return after  # not executed again
        if not {one for one in row.saw if _has_ended(state.rows[one])} <= process.over:
            return state._replace(broken=f"{seq} runs again without what had ended before it began")
        if row.executed and state.harms == self._size.harms:
            return state._replace(broken=f"{seq} is executed again, though nothing has died")
        after = _with_row(after, seq, row._replace(executed=True))
        with_code = tuple(
            one for one, other in enumerate(state.rows) if other.with_code and self._work(one).target == seq
        )
        process = process._replace(running=process.running | {seq})
        return self._read(after._replace(listening=state.listening | {seq}), process, with_code)

    def _read(self, state: State, process: Process, seqs: tuple[int, ...]) -> State:
        process = process._replace(read=(*process.read, *seqs))
        for seq in seqs:
            of_reader = [one for one in process.read if self._work(one).target == self._work(seq).target]
            if of_reader != sorted(of_reader):
                return state._replace(broken=f"{self._work(seq).target} reads in another order than it was given")
        return state._replace(process=process)

    # What runs ends.

    def _ends(self, state: State, process: Process) -> Iterator[Step[State]]:
        for seq in process.running:
            if self._may_end(state, process, seq):
                ended = process._replace(
                    running=process.running - {seq}, over=process.over | {seq}, said=process.said | {seq}
                )
                yield Step(f"{seq} ends", state._replace(process=ended))
        for seq in process.said - state.heard:
            forgotten = state._replace(process=process._replace(said=process.said - {seq}))
            if state.rows[seq].answer or seq not in state.listening:
                yield Step(f"the end of {seq} is nobody's", forgotten)
            elif self._without is Condition.SAID_UNTIL_COMMITTED:
                yield Step(f"the end of {seq} is heard of", forgotten._replace(heard=state.heard | {seq}))
            else:
                yield Step(f"the end of {seq} is heard of", state._replace(heard=state.heard | {seq}))
        for seq in state.heard:
            row = state.rows[seq]._replace(answer=ENDED, behind=state.next_position - 1)
            after = _with_row(state, seq, row)
            told = process._replace(said=process.said - {seq})
            yield Step(f"the end of {seq} is committed", after._replace(process=told, heard=state.heard - {seq}))

    def _may_end(self, state: State, process: Process, seq: int) -> bool:
        to_read = [
            one
            for one, work in enumerate(self._size.works)
            if work.target == seq and not (one < len(state.rows) and state.rows[one].answer == REFUSED)
        ]
        if not set(to_read) <= set(process.read):
            return False
        other = self._work(seq).waits_for
        if other == NONE or other in process.running | process.over:
            return True
        return other < len(state.rows) and state.rows[other].answer not in {"", ENDED}

    # Snapshots, sleep and wake.

    def _saves(self, state: State, process: Process) -> Iterator[Step[State]]:
        if not state.served or (state.heard and self._without is not Condition.HEARD_IS_COMMITTED):
            return
        head = state.head
        if head is None or head.process != process:
            names = frozenset(
                seq
                for seq in (process.running | process.said) & state.listening
                if seq not in state.heard and (seq in process.running or not state.rows[seq].answer)
            )
            names = NOTHING if self._without is Condition.NAMED else names
            older = head if head is not None and self._is_quiescent(head) else state.older
            yield Step("it is saved", state._replace(head=Snapshot(process, names), older=older))
        elif not self._unsent(state, process.received) and self._all_inside(state, head):
            yield Step("it falls asleep", _asleep(state))

    def _all_inside(self, state: State, head: Snapshot) -> bool:
        """Whether what was started and is unfinished runs in the head, and what runs in the head is unfinished."""
        for seq, row in enumerate(state.rows):
            is_inside = seq in head.names and not row.again
            if row.position == NONE or row.left:
                continue
            if is_inside != (not row.answer) and self._without is not Condition.NAMED:
                return False
        return True

    def _is_quiescent(self, snapshot: Snapshot) -> bool:
        return all(self._work(seq).kind is Kind.BACKGROUND for seq in snapshot.names)

    def _bringing_back(self, state: State) -> Iterator[Step[State]]:
        head = state.head
        names = NOTHING if head is None else head.names
        rolls_back = state.asleep and state.harms and head is not None and state.older is not None
        if rolls_back and head is not None and state.older is not None and self._may_roll_back(state, head):
            for position in self._points(state, state.older):
                yield Step(f"a rollback to {position}", self._rolled_back(state, state.older, position), True)
        if any(state.rows[seq].answer == UNDONE and not state.rows[seq].again for seq in names):
            gone_back = state._replace(head=state.older, older=None, ready=False, recovering=True)
            yield Step("the head is set aside", gone_back)
            return
        if state.recovering and self._size.forgoes:
            after = self._forgone(state)
            if after is not None:
                yield Step("what was not saved is left behind", after)
                return
        process = Process() if head is None else head.process
        cut = frozenset(seq for seq in process.running if state.rows[seq].cut)
        process = process._replace(running=process.running - cut)
        yield Step(
            "the machine is brought back",
            state._replace(process=process, listening=names, served=False, asleep=False, recovering=False),
        )

    # Rollbacks, and recoveries that leave things behind.

    def _may_roll_back(self, state: State, head: Snapshot) -> bool:
        for seq, row in enumerate(state.rows):
            sleeps = self._work(seq).kind is Kind.BACKGROUND and row.position != NONE
            if not row.answer and not sleeps:
                return False
            if row.position > head.process.received and not row.left:
                return False
        return self._is_quiescent(head)

    def _points(self, state: State, snapshot: Snapshot) -> list[int]:
        """What can be gone back to from a snapshot: itself, and behind each that has ended since."""
        begin, points = snapshot.process.received, {snapshot.process.received}
        for seq, row in enumerate(state.rows):
            if row.answer == ENDED and not row.left and not row.cut and row.position > begin:
                read = (
                    other.position
                    for one, other in enumerate(state.rows)
                    if self._work(one).target == seq and self._work(seq).kind is Kind.INSTRUCTION
                )
                points.add(max(row.position, *read, NONE))
        return sorted(points)

    def _rolled_back(self, state: State, to: Snapshot, position: int) -> State:
        rows = list(self._gone_back(state.rows, position))
        for seq, row in enumerate(rows):
            if row.position > position:
                ends = not row.answer and self._without is not Condition.LEFT_ENDS
                rows[seq] = row._replace(left=True, answer=LEFT if ends else row.answer)
        return state._replace(rows=tuple(rows), head=to, older=None, ready=False, harms=state.harms - 1)

    def _gone_back(self, rows: tuple[Row, ...], position: int) -> Iterator[Row]:
        """What began up to a position and ended behind it is not to end there again."""
        for row in rows:
            elsewhere = row.answer == ENDED and row.position <= position <= row.behind
            yield row._replace(again=row.again or (elsewhere and self._without is not Condition.ANOTHER_FUTURE))

    def _forgone(self, state: State) -> State | None:
        """Without what is not saved; None if there is nothing to be left behind."""
        head = Snapshot(Process(), NOTHING) if state.head is None else state.head
        behind = set(self._unsent(state, head.process.received))
        lost = {
            seq
            for seq in behind
            if self._work(seq).kind is not Kind.INPUT and state.rows[seq].answer != UNDONE
            if state.rows[seq].answer or state.rows[seq].position <= state.sent
        }
        cut = {seq for seq in head.names if self._work(seq).kind is not Kind.BACKGROUND and not state.rows[seq].cut}
        if not lost and not cut:
            return None
        rows = list(self._gone_back(state.rows, head.process.received))
        for seq in behind | cut:
            row = rows[seq]
            waits = not row.answer and seq not in lost
            if row.answer == GIVEN and row.position > state.sent:
                waits = self._without is not Condition.UNSENT_WAITS
            if seq in cut:
                rows[seq] = row._replace(cut=True, answer=row.answer or ENDED)
            elif waits:
                rows[seq] = Row()
            else:
                rows[seq] = row._replace(left=True, answer=row.answer or UNDONE)
        return state._replace(rows=tuple(rows), ready=False)

    # Deaths.

    def _deaths(self, state: State) -> Iterator[Step[State]]:
        if not state.harms or not state.alive:
            return
        less = state._replace(harms=state.harms - 1)
        process = state.process
        gone = less._replace(
            alive=False, ready=False, heard=NOTHING, served=False, recovering=state.recovering or not state.asleep
        )
        adopted = gone if process is None else gone._replace(listening=process.running | process.said)
        yield Step("the server dies", adopted._replace(sent=UNKNOWN if process is None else state.sent), True)
        if process is None:
            return
        yield Step("the server and its process die", gone._replace(process=None, sent=UNKNOWN), True)
        rows = list(state.rows)
        for seq in process.running | process.said | state.heard:
            if not rows[seq].answer and self._work(seq).kind is not Kind.BACKGROUND:
                rows[seq] = rows[seq]._replace(answer=UNDONE)
        buried = less._replace(
            rows=tuple(rows), process=None, heard=NOTHING, served=False, recovering=True, sent=process.received
        )
        yield Step("the process dies", buried, True)


def _has_ended(row: Row) -> bool:
    """Whether it has ended in what the machine has behind it: if it runs again, that is a replay, and waited for."""
    return row.answer == ENDED and not (row.left or row.again or row.cut)


def _asleep(state: State) -> State:
    return state._replace(process=None, listening=NOTHING, served=False, ready=False, asleep=True, recovering=False)


def _with_row(state: State, seq: int, row: Row) -> State:
    return state._replace(rows=(*state.rows[:seq], row, *state.rows[seq + 1 :]))
