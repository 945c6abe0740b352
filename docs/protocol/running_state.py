"""What there is in the first half of the protocol: a machine's rows in the ledger, and workers with their processes."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

NONE: Final = -1
UNDONE: Final = "undone"


class Condition(Enum):
    """What the code heeds. The model can leave out one, to show that it is needed."""

    HELD = "a change is refused unless the machine is held by its session and epoch"
    EPOCH = "a change is refused if the epoch has grown, though the session is the same"
    TAKE_OVER = "a new session takes over every machine that is held"
    LIVE_SESSION = "a machine is acquired only under a session that is still there"
    LOG_IS_QUEUE = "a machine with unfinished entries and no session is looked for in the log"
    FIRST_ANSWER_STAYS = "an entry that is finished is not finished again"
    COMMITTED_BEFORE_ANSWERED = "an answer is committed before its client sees it"
    STARTED_BEFORE_SENT = "an entry is started in the log before it is sent"
    ONE_AT_A_TIME = "an instruction is started only when all that were started before are finished"
    ATTEMPT_COUNTED_FIRST = "another attempt is counted before the entry is sent again"
    REPLAY_BEHIND_HEAD = "what is finished and not in the snapshot is executed again"
    UNDONE_LEFT_OUT = "what was undone is not executed again"
    ROLLED_BACK_LEFT_OUT = "what a rollback left behind is not executed again"
    UNDONE_HEAD_SET_ASIDE = "a snapshot in the middle of an undone entry is set aside for the one before"
    POSITION_AT_CAPTURE = "a snapshot's position is what its process had received when it was captured"
    HEAD_IS_EXPECTED = "a snapshot becomes the head only if the head is the one it was made on"
    READ_BACK = "after a refused commit the head is read, as it may be our own"
    RELEASE_AT_HEAD = "a machine is released only if its head is what the worker saved last"
    RELEASE_NOTHING_BEHIND = "a machine is released only if nothing unfinished or behind the head is in its log"
    KILL_AFTER_RELEASE = "a process is let go only when its machine was released"
    ADOPT_WHAT_FITS = "a sandbox is adopted only if it was sent what the log has, or all but the last, unfinished entry"
    ADOPT_THE_LAST = "a sandbox is adopted only if no other of its machine was made since"
    ADOPT_NOTHING_UNDONE = "a sandbox is not adopted that was sent what is undone by now"
    LOGGED_BEFORE_MADE = "a change of files is in the log before it is made, and only then answered"
    LOGGED_BEHIND_ALL = "a change of files goes into the log only when all that was started before was sent"
    ROLL_BACK_FROM_COMPLETE_HEAD = "a machine is rolled back only when it is asleep and its head has all that it did"


class Entry(NamedTuple):
    """A row of the log, an instruction or a change of files; and, behind `seen`, what only the checker knows."""

    position: int = NONE
    attempt: int = 0
    answer: str = ""
    """Of an execution, as no two need to agree."""
    rolled_back: bool = False
    seen: str = ""
    """What its client was answered first."""
    executions: int = 0
    told: bool = False
    """A notice said that it was executed again."""
    change: bool = False
    """It changes files: it has its position and its answer from the beginning, and may be made any number of times."""


class Process(NamedTuple):
    """A sandbox: the seqs whose effects it has, in order, what runs, and the highest position that it was sent."""

    effects: tuple[int, ...] = ()
    running: int = NONE
    received: int = NONE
    ticked: bool = False
    """A thread of the user's has done something."""
    made: tuple[int, ...] = ()
    """Changes of files, beside what runs; in order among each other."""


class Snapshot(NamedTuple):
    """A process under a generation's number; on its way `on` is the head that it was made on."""

    number: int
    process: Process
    on: int = NONE

    @property
    def position(self) -> int:
        """What its process had been sent."""
        return self.process.received


class Worker(NamedTuple):
    """A server's process and what it believes."""

    alive: bool = False
    epoch: int = NONE
    """Of its hold."""
    head: int = NONE
    process: Process | None = None
    paused_as: int = NONE
    """The process is paused, and this generation is what it is."""
    condemned: bool = False
    """Its process is to be removed: what ran in it was given up."""
    saving: Snapshot | None = None
    to_send: int = NONE
    """The seq that was started for it, and that its process has not been sent."""
    to_make: int = NONE
    """The change that is in the log, and that its process has not been sent: nothing else is done before."""
    left_over: Process | None = None
    """A sandbox of an earlier process in its place, on the same host."""
    hint: bool = False


class Late(NamedTuple):
    """A commit whose sender has stopped waiting for the answer."""

    session: int
    epoch: int
    snapshot: Snapshot


class State(NamedTuple):
    """Ledger, workers, and what is between them."""

    entries: tuple[Entry, ...] = ()
    session: int = NONE
    epoch: int = 0
    ready: bool = False
    recovering: bool = False
    head: Snapshot | None = None
    older: Snapshot | None = None
    """The newest quiescent one that the head came from."""
    made_at: int = NONE
    """The worker that made the newest process of the machine."""
    open_session: int = NONE
    """The worker whose session is in the ledger."""
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    late: Late | None = None
    poison: int = NONE
    """The seq that brings down its process and its server whenever it runs."""
    harms: int = 0
    """How many more are to come."""
    synced: bool = False
    """The thread was told that what it did is saved."""
    broken: str | None = None


def executed_again(state: State, seq: int, *, executed: bool = True, attempt: bool = True) -> State:
    """It is begun again, and a notice says so."""
    entry = state.entries[seq]
    entry = entry._replace(
        attempt=min(2, entry.attempt + attempt), executions=min(3, entry.executions + executed), told=True
    )
    return with_entry(state, seq, entry)


def sent(state: State, number: int, seq: int, process: Process) -> State:
    """Its frame goes to the process of a worker."""
    entry = state.entries[seq]
    after = process._replace(running=seq, received=max(process.received, entry.position))
    state = with_entry(state, seq, entry._replace(executions=min(3, entry.executions + 1)))
    return with_worker(state, number, state.workers[number]._replace(process=after, to_send=NONE))


def answered_to_client(state: State, seq: int, answer: str) -> State:
    """Its client sees an answer, if it has seen none."""
    entry = state.entries[seq]
    return with_entry(state, seq, entry._replace(seen=entry.seen or answer))


def let_go(state: State, number: int) -> State:
    """A worker that was refused lets go of its process."""
    return with_worker(state, number, Worker(alive=True))


def left_behind(state: State, number: int) -> State:
    """A worker dies, and its sandbox lives on."""
    worker = state.workers[number]
    return with_worker(state, number, Worker(left_over=worker.process or worker.left_over))


def harmed(state: State) -> State:
    """One harm fewer is to come."""
    return state._replace(harms=state.harms - 1)


def first_unfinished(state: State) -> int:
    """The seq of the entry that was started and is not finished, NONE if there is none."""
    some = [seq for seq, entry in enumerate(state.entries) if entry.position != NONE and not entry.answer]
    return some[0] if some else NONE


def next_position(state: State) -> int:
    """The position of the next entry that is started."""
    return 1 + max((entry.position for entry in state.entries), default=NONE)


def next_number(state: State) -> int:
    """The number of the next generation."""
    return 1 + max(_numbers(state))


def with_worker(state: State, number: int, worker: Worker) -> State:
    """With another worker in this place."""
    one, other = state.workers
    return state._replace(workers=(worker, other) if number == 0 else (one, worker))


def with_entry(state: State, seq: int, entry: Entry) -> State:
    """With another row for this seq."""
    if entry.answer:  # what makes no difference any more: how often it was tried, and executions that were told
        executions = 1 if entry.told else min(2, entry.executions)
        entry = entry._replace(attempt=0, executions=executions)
    return state._replace(entries=(*state.entries[:seq], entry, *state.entries[seq + 1 :]))


def _numbers(state: State) -> set[int]:
    one, other = state.workers
    late = None if state.late is None else state.late.snapshot
    known = {one.head, one.paused_as, other.head, other.paused_as, NONE}
    for snapshot in (state.head, state.older, one.saving, other.saving, late):
        if snapshot is not None:
            known |= {snapshot.number, snapshot.on}
    return known


def _epochs(state: State) -> set[int]:
    late = NONE if state.late is None else state.late.epoch
    return {state.epoch, state.workers[0].epoch, state.workers[1].epoch, late, NONE}


def renumbered(state: State) -> State:
    """The same with the smallest epochs and generations in the same order.

    They grow for ever, but only which is the greater makes a difference.
    """
    numbers, epochs = _numbers(state), _epochs(state)
    # They begin with NONE, which is -1: without gaps the greatest of n is n - 2.
    if max(numbers) == len(numbers) - 2 and max(epochs) == len(epochs) - 2:
        return state
    number_of = {number: index for index, number in enumerate(sorted(numbers), NONE)}
    epoch_of = {epoch: index for index, epoch in enumerate(sorted(epochs), NONE)}

    def renumbered(one: Snapshot | None) -> Snapshot | None:
        return None if one is None else one._replace(number=number_of[one.number], on=number_of[one.on])

    def of_worker(one: Worker) -> Worker:
        return one._replace(
            epoch=epoch_of[one.epoch],
            head=number_of[one.head],
            paused_as=number_of[one.paused_as],
            saving=renumbered(one.saving),
        )

    late = state.late
    if late is not None:
        snapshot = late.snapshot._replace(number=number_of[late.snapshot.number], on=number_of[late.snapshot.on])
        late = Late(late.session, epoch_of[late.epoch], snapshot)
    return state._replace(
        epoch=epoch_of[state.epoch],
        head=renumbered(state.head),
        older=renumbered(state.older),
        workers=(of_worker(state.workers[0]), of_worker(state.workers[1])),
        late=late,
    )
