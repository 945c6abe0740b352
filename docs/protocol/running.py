"""The first half of the protocol: one machine, its log, its processes, and the workers that come and go.

README.md says what the parts stand for, and which function of the code has each condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from docs.protocol.checker import Step
from docs.protocol.running_state import (
    NONE,
    UNDONE,
    Condition,
    Entry,
    Late,
    Process,
    Snapshot,
    State,
    Worker,
    answered_to_client,
    executed_again,
    first_unfinished,
    harmed,
    left_behind,
    let_go,
    next_number,
    next_position,
    renumbered,
    sent,
    with_entry,
    with_worker,
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    entries: int
    """Instructions, all accepted at any time."""
    harms: int
    """Deaths, lost answers, servers that start beside another, rollbacks, snapshots that cannot be restored."""
    changes: int = 0
    """Changes of files, prepared at any time."""
    threads: bool = False
    """A thread of the user's does something, once."""
    poison: int = NONE
    """The seq of an instruction that kills its process and its server, whenever it runs, which is no harm."""


class Running:
    """One machine, two workers, and clients; `without` one of the conditions."""

    def __init__(self, size: Size, without: Condition | None = None) -> None:
        self._size = size
        self._without = without

    # What the checker asks.

    def initial(self) -> list[State]:
        """A new machine."""
        return [State(harms=self._size.harms, poison=self._size.poison)]

    def steps(self, state: State) -> Iterator[Step[State]]:
        """All that can happen next."""
        if state.broken:
            return
        for step in self._all(state):
            yield step._replace(state=renumbered(step.state))

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks."""
        if state.broken:
            return state.broken
        for seq, entry in enumerate(state.entries):
            if entry.seen and entry.seen != entry.answer:
                return f"the answer of {seq} that its client saw is not the one that is kept"
            if entry.executions > 1 and not entry.told:
                return f"{seq} was executed twice, and nobody was told"
            if entry.executions > 2 and not entry.answer:
                return f"{seq} is run a third time, whatever it does"
        for worker in state.workers:
            if worker.process is not None and self._held_by(state, worker) and not worker.condemned:
                made = self._changes(state, worker.process.received)
                if worker.process.made != made:
                    return "a process has not the changes of files that its position says"
        if state.session == NONE:
            head = None if state.head is None else state.head.process
            has = () if head is None else (*head.effects, *head.made, head.running)
            for seq, entry in enumerate(state.entries):
                counts = entry.position >= 0 and entry.answer != UNDONE and not entry.rolled_back
                if counts and seq not in has:
                    return f"the machine is asleep without the effect of {seq}"
        return None

    def settled(self, state: State) -> bool:
        """Everything is answered, and the machine is asleep."""
        instructions = [entry for entry in state.entries if not entry.change]
        answered = len(instructions) == self._size.entries and all(entry.answer for entry in instructions)
        return answered and state.session == NONE

    # What can happen.

    def _all(self, state: State) -> Iterator[Step[State]]:
        yield from self._clients(state)
        yield from self._deaths(state)
        if state.late is not None:
            yield Step("a late commit arrives", self._arrived(state, state.late))
        for number, worker in enumerate(state.workers):
            if worker.alive:
                yield from self._ledger_steps(state, number, worker)
                yield from self._process_steps(state, number, worker)
        yield from self._starts(state)

    def _starts(self, state: State) -> Iterator[Step[State]]:
        current = state.open_session
        if current == NONE or not state.workers[current].alive:
            place = 0 if not state.workers[0].alive else 1
            if state.late is not None and state.late.session == place:
                place = 1 - place
            if not state.workers[place].alive:
                yield Step(f"server {place} starts", self._opened(state, place))
        elif state.harms and not state.workers[1 - current].alive:
            after = self._opened(harmed(state), 1 - current)
            yield Step(f"server {1 - current} starts, though {current} lives", after, True)

    def _clients(self, state: State) -> Iterator[Step[State]]:
        if sum(not entry.change for entry in state.entries) < self._size.entries:
            free = all(entry.answer for entry in state.entries)
            started = state.ready and free
            entry = Entry(position=next_position(state), attempt=1) if started else Entry()
            after = state._replace(entries=(*state.entries, entry))
            if self._without is Condition.LOG_IS_QUEUE and state.open_session != NONE:
                worker = state.workers[state.open_session]
                after = with_worker(after, state.open_session, worker._replace(hint=worker.alive))
            if started:
                worker = after.workers[state.session]
                told = worker._replace(to_send=len(state.entries) if worker.alive else NONE)
                after = with_worker(after, state.session, told)
            yield Step(f"{len(state.entries)} is accepted" + (" and started" if started else ""), after)
        if state.harms and state.older is not None and self._may_roll_back(state):
            yield Step("a rollback", self._rolled_back(harmed(state), state.older), True)

    def _may_roll_back(self, state: State) -> bool:
        if self._without is Condition.ROLL_BACK_FROM_COMPLETE_HEAD:
            return state.head is not None
        return state.session == NONE and self._complete(state)

    def _complete(self, state: State) -> bool:
        """Whether the head is quiescent and has everything, with nothing unfinished."""
        if state.head is None or state.head.process.running != NONE or not all(entry.answer for entry in state.entries):
            return False
        return not any(entry.position > state.head.position for entry in state.entries if not entry.rolled_back)

    def _rolled_back(self, state: State, to: Snapshot) -> State:
        broken = None
        head = None if state.head is None else state.head.process
        if head is None or (head.effects, head.made) != (self._should_have(state), self._changes(state)):
            broken = "a rollback leaves behind what no snapshot has"
        entries = [
            entry._replace(rolled_back=entry.rolled_back or entry.position > to.position) for entry in state.entries
        ]
        return state._replace(
            entries=tuple(entries),
            head=to,
            older=None,
            epoch=state.epoch + 1,
            ready=False,
            synced=to.process.ticked,
            broken=broken,
        )

    def _deaths(self, state: State) -> Iterator[Step[State]]:
        for number, worker in enumerate(state.workers):
            if worker.alive and worker.process is not None and worker.process.running == state.poison != NONE:
                yield Step(f"{state.poison} kills server {number}", with_worker(state, number, Worker()))
            if not worker.alive or not state.harms:
                continue
            less = harmed(state)
            yield Step(f"server {number} dies", left_behind(less, number), True)
            if worker.process is None:
                continue
            yield Step(f"server {number} and its sandbox die", with_worker(less, number, Worker()), True)
            if not worker.condemned:
                yield Step(f"the process of {number} dies", self._ended(less, number, worker, gone=True), True)
            running = worker.process.running
            if running != NONE and not worker.condemned:
                if running != state.poison and self._held(state, number, worker.epoch):
                    answered = self._answered(less, running, f"of execution {state.entries[running].executions}")
                    yield Step(
                        f"{number} commits an answer and dies, unheard by the guest",
                        left_behind(answered, number),
                        True,
                    )
                yield Step(f"{number} gives up {running}", self._ended(less, number, worker, gone=False), True)

    def _ended(self, state: State, number: int, worker: Worker, *, gone: bool) -> State:
        """What ran in the process is answered with an error; the process is gone, or is to be removed."""
        process = worker.process
        if process is None or process.running == NONE:
            gone_with = worker._replace(process=None, paused_as=NONE, saving=None, to_make=NONE)
            return with_worker(state, number, gone_with)
        if not self._held(state, number, worker.epoch):
            return let_go(state, number)
        state = self._answered(state, process.running, UNDONE)
        worker = worker._replace(
            process=None if gone else process, condemned=not gone, paused_as=NONE, saving=None, to_make=NONE
        )
        return with_worker(state, number, worker)

    def _ledger_steps(self, state: State, number: int, worker: Worker) -> Iterator[Step[State]]:
        if worker.epoch == NONE:
            if self._may_acquire(state, number, worker):
                yield Step(f"{number} acquires the machine", self._acquired(state, number))
            return
        held = self._held(state, number, worker.epoch)
        if not held:
            yield Step(f"{number} is fenced", let_go(state, number))
            return
        if worker.process is None:
            yield from self._bringing_back(state, number, worker)
            return
        if worker.condemned:
            removed = worker._replace(process=None, condemned=False)
            yield Step(f"{number} removes its sandbox", with_worker(state, number, removed))
            return
        if worker.to_make != NONE:
            return
        if worker.paused_as == NONE and self._may_log(state, worker.process):
            yield Step(f"{number} logs a change of files", self._logged(state, number, worker, worker.process))
        entry = self._may_start(state)
        if entry != NONE:
            after = with_worker(self._started(state, entry), number, worker._replace(to_send=entry))
            yield Step(f"{number} starts {entry}", after)
        yield from self._saving(state, number, worker, worker.process)
        if worker.paused_as != NONE:
            if self._may_release(state, worker):
                yield Step(f"{number} releases the machine", self._released(state, number))
            resumed = worker._replace(paused_as=NONE)
            yield Step(f"{number} resumes its process", with_worker(state, number, resumed))

    def _process_steps(self, state: State, number: int, worker: Worker) -> Iterator[Step[State]]:
        """What a worker does without asking whether it still holds the machine."""
        process = worker.process
        if worker.left_over is not None:
            after = with_worker(state, number, worker._replace(left_over=None))
            yield Step(f"{number} removes what was left over", after)
        if process is None or worker.condemned or worker.paused_as != NONE:
            return
        if worker.to_make != NONE:
            yield Step(f"{number} makes {worker.to_make}", self._made(state, number, worker, process))
            return
        if self._size.threads and not process.ticked:
            ticked = worker._replace(process=process._replace(ticked=True))
            yield Step(f"a thread in the process of {number} goes on", with_worker(state, number, ticked))
        if process.running != NONE:
            if process.running != state.poison:
                yield Step(f"{number} finishes {process.running}", self._finished(state, number, process))
            if self._without is Condition.COMMITTED_BEFORE_ANSWERED:
                executions = state.entries[process.running].executions
                answered = answered_to_client(state, process.running, f"of execution {executions}")
                yield Step(f"{number} answers {process.running}", answered)
            return
        to_send = worker.to_send
        if self._without is Condition.STARTED_BEFORE_SENT and to_send == NONE:
            to_send = self._may_start(state)
        if to_send != NONE and NONE < state.entries[to_send].position <= process.received:
            ignored = state._replace(broken=f"{to_send} is ignored by its guest, which has heard of a later one")
            yield Step(f"{number} sends {to_send}", ignored)
        elif to_send != NONE:
            yield Step(f"{number} sends {to_send}", sent(state, number, to_send, process))
        if self._without is Condition.KILL_AFTER_RELEASE and worker.saving is not None:
            yield Step(
                f"{number} kills its process, which is captured",
                with_worker(state, number, worker._replace(process=None)),
            )

    # Changes of files.

    def _may_log(self, state: State, process: Process) -> bool:
        if sum(entry.change for entry in state.entries) == self._size.changes:
            return False
        unsent = any(entry.position > process.received and not entry.rolled_back for entry in state.entries)
        return not unsent or self._without is Condition.LOGGED_BEHIND_ALL

    def _logged(self, state: State, number: int, worker: Worker, process: Process) -> State:
        """In the log, with a position and answered; next it is made."""
        seq = len(state.entries)
        entry = Entry(position=next_position(state), answer="made", seen="made", change=True)
        if self._without is Condition.LOGGED_BEFORE_MADE:
            # It is made and answered, and the log is to have it later.
            worker = worker._replace(process=process._replace(made=(*process.made, seq)))
            return with_worker(state._replace(entries=(*state.entries, entry._replace(position=NONE))), number, worker)
        state = state._replace(entries=(*state.entries, entry))
        return with_worker(state, number, worker._replace(to_make=seq))

    def _made(self, state: State, number: int, worker: Worker, process: Process) -> State:
        entry = state.entries[worker.to_make]
        after = process._replace(made=(*process.made, worker.to_make), received=max(process.received, entry.position))
        return with_worker(state, number, worker._replace(process=after, to_make=NONE))

    def _changes(self, state: State, up_to: int | None = None) -> tuple[int, ...]:
        """The changes that a process must have, up to a position."""
        some = [
            (entry.position, seq)
            for seq, entry in enumerate(state.entries)
            if entry.change and not entry.rolled_back
            if up_to is None or entry.position <= up_to
        ]
        return tuple(seq for _, seq in sorted(some))

    # Holds.

    def _held_by(self, state: State, worker: Worker) -> bool:
        return state.session != NONE and state.workers[state.session] is worker and state.epoch == worker.epoch

    def _held(self, state: State, session: int, epoch: int) -> bool:
        if self._without is Condition.HELD:
            return True
        return state.session == session and (state.epoch == epoch or self._without is Condition.EPOCH)

    def _opened(self, state: State, number: int) -> State:
        state = with_worker(state, number, state.workers[number]._replace(alive=True))
        if state.session == NONE or self._without is Condition.TAKE_OVER:
            return state._replace(open_session=number)
        return state._replace(open_session=number, session=number, epoch=state.epoch + 1, ready=False, recovering=True)

    def _may_acquire(self, state: State, number: int, worker: Worker) -> bool:
        if number != state.open_session and self._without is not Condition.LIVE_SESSION:
            return False
        waits = not all(entry.answer for entry in state.entries)
        if self._without is Condition.LOG_IS_QUEUE:
            waits = worker.hint
        return state.session == number or (state.session == NONE and waits)

    def _acquired(self, state: State, number: int) -> State:
        epoch = state.epoch + 1
        head = NONE if state.head is None else state.head.number
        worker = Worker(alive=True, epoch=epoch, head=head, left_over=state.workers[number].left_over)
        return with_worker(state, number, worker)._replace(
            session=number, epoch=epoch, ready=False, recovering=state.session == number
        )

    def _may_release(self, state: State, worker: Worker) -> bool:
        head = state.head
        if head is None or (head.number != worker.paused_as and self._without is not Condition.RELEASE_AT_HEAD):
            return False
        if self._without is Condition.RELEASE_NOTHING_BEHIND:
            return True
        # `draining` is the weaker of the two: what was accepted and not started may be there.
        for seq, entry in enumerate(state.entries):
            if entry.position == NONE or entry.rolled_back:
                continue
            if entry.position > head.position or (not entry.answer) != (seq == head.process.running):
                return False
        return True

    def _released(self, state: State, number: int) -> State:
        process = state.workers[number].process
        broken = None
        if process is not None and state.head is not None and process != state.head.process:
            broken = "what the process was when it was let go is not what will wake"
        state = with_worker(state, number, Worker(alive=True, left_over=process))
        return state._replace(session=NONE, ready=False, recovering=False, broken=broken)

    # The log.

    def _may_start(self, state: State) -> int:
        waiting = [seq for seq, entry in enumerate(state.entries) if entry.position == NONE and not entry.answer]
        runs = any(entry.position != NONE and not entry.answer for entry in state.entries)
        if not waiting or (runs and self._without is not Condition.ONE_AT_A_TIME):
            return NONE
        return waiting[0]

    def _started(self, state: State, seq: int) -> State:
        return with_entry(state, seq, state.entries[seq]._replace(position=next_position(state), attempt=1))

    def _finished(self, state: State, number: int, process: Process) -> State:
        """The guest's answer is committed, or refused."""
        worker = state.workers[number]
        if not self._held(state, number, worker.epoch):
            return let_go(state, number)
        seq = process.running
        if state.entries[seq].answer != UNDONE and process.effects != self._should_have(state, before=seq):
            return state._replace(
                broken=f"{seq} is answered by a process without all, or with more than, what came before"
            )
        state = self._answered(state, seq, f"of execution {state.entries[seq].executions}")
        return with_worker(
            state, number, worker._replace(process=process._replace(effects=(*process.effects, seq), running=NONE))
        )

    def _answered(self, state: State, seq: int, answer: str) -> State:
        if state.entries[seq].answer and self._without is not Condition.FIRST_ANSWER_STAYS:
            return state
        return answered_to_client(with_entry(state, seq, state.entries[seq]._replace(answer=answer)), seq, answer)

    def _should_have(self, state: State, *, before: int = NONE, up_to: int | None = None) -> tuple[int, ...]:
        """The effects that a process must have: before an entry begins, or up to a position."""
        limit = state.entries[before].position - 1 if before != NONE else up_to
        some = [
            (entry.position, seq)
            for seq, entry in enumerate(state.entries)
            if entry.position >= 0 and entry.answer != UNDONE and not entry.rolled_back and not entry.change
            if limit is None or entry.position <= limit
        ]
        return tuple(seq for _, seq in sorted(some))

    # Snapshots.

    def _saving(self, state: State, number: int, worker: Worker, process: Process) -> Iterator[Step[State]]:
        saving = worker.saving
        if worker.paused_as == NONE:
            head = state.head
            if head is not None and head.number == worker.head and process == head.process:
                paused = worker._replace(paused_as=head.number)
                yield Step(f"{number} pauses, saved as it is", with_worker(state, number, paused))
            elif saving is None:
                new = Snapshot(next_number(state), process, worker.head)
                captured = worker._replace(saving=new)
                yield Step(f"{number} captures", with_worker(state, number, captured))
                paused = captured._replace(paused_as=new.number)
                yield Step(f"{number} pauses and captures", with_worker(state, number, paused))
        if saving is None:
            return
        failed = with_worker(state, number, worker._replace(saving=None))
        yield Step(f"a save of {number} fails", failed, True)
        if state.late is None and state.harms:
            late = Late(number, worker.epoch, saving)
            yield Step(f"{number} stops waiting for a commit", harmed(failed)._replace(late=late), True)
        committed = self._committed(state, saving)
        if committed is not None:
            if state.harms and committed != state:
                yield Step(f"the answer to a commit of {number} is lost", harmed(committed), True)
            after = worker._replace(saving=None, head=saving.number)
            committed = committed._replace(synced=committed.synced or saving.process.ticked)
            yield Step(f"{number} commits", with_worker(committed, number, after))
        elif self._without is Condition.READ_BACK:
            yield Step(f"a commit of {number} is refused", failed)
        else:
            current = NONE if state.head is None else state.head.number
            after = worker._replace(head=current, saving=saving._replace(on=current))
            yield Step(f"a commit of {number} is refused; it reads the head", with_worker(state, number, after))

    def _committed(self, state: State, saved: Snapshot) -> State | None:
        """The ledger after the commit; None if it is refused."""
        head = state.head
        if head is not None and head.number == saved.number:
            return state
        expected = saved.on == (NONE if head is None else head.number)
        if not expected and self._without is not Condition.HEAD_IS_EXPECTED:
            return None
        process = saved.process
        if self._without is Condition.POSITION_AT_CAPTURE:
            process = process._replace(received=next_position(state) - 1)
            saved = saved._replace(process=process)
        broken = None
        has = process.effects
        if process.running != NONE and state.entries[process.running].answer != UNDONE:
            has = (*has, process.running)
        should_have = self._should_have(state, up_to=process.received), self._changes(state, process.received)
        if (has, process.made) != should_have:
            broken = "a snapshot is committed without all, or with more than, what its position says"
        if state.synced and not process.ticked:
            broken = "what was said to be saved is not in the head any more"
        quiescent = head is not None and head.process.running == NONE
        return state._replace(
            head=saved._replace(on=NONE), older=head if quiescent else state.older, broken=broken or state.broken
        )

    def _arrived(self, state: State, late: Late) -> State:
        state = state._replace(late=None)
        if not self._held(state, late.session, late.epoch):
            return state
        return self._committed(state, late.snapshot) or state

    # Bringing back.

    def _bringing_back(self, state: State, number: int, worker: Worker) -> Iterator[Step[State]]:
        head = state.head
        in_head = NONE if head is None else head.process.running
        undone = in_head != NONE and state.entries[in_head].answer == UNDONE
        if undone and self._without is not Condition.UNDONE_HEAD_SET_ASIDE:
            yield Step(f"{number} sets its head aside", self._gone_back(state, number))
            return
        if state.harms and head is not None:
            yield Step(f"{number} cannot restore its head", self._gone_back(harmed(state), number), True)
        unfinished = first_unfinished(state)
        if worker.left_over is not None:
            last = state.made_at == number or self._without is Condition.ADOPT_THE_LAST
            if state.recovering and last and self._fits(state, worker.left_over):
                to_make, to_send = _unsent(state, worker.left_over)
                adopted = worker._replace(process=worker.left_over, left_over=None, to_send=to_send, to_make=to_make)
                after = with_worker(state, number, adopted)
                yield Step(f"{number} adopts its sandbox", after._replace(ready=True, recovering=False))
            return
        tried_enough = state.recovering and unfinished != NONE and state.entries[unfinished].attempt >= 2
        if tried_enough:
            yield Step(f"{number} gives up {unfinished}", self._answered(state, unfinished, UNDONE))
            return
        yield Step(f"{number} brings the machine back", self._restored(state, number, unfinished))

    def _fits(self, state: State, process: Process) -> bool:
        known = [entry.position for entry in state.entries if not entry.rolled_back and entry.position != NONE]
        unsent = [position for position in known if position > process.received]
        fits = process.received == max(known, default=NONE) if not unsent else _unsent(state, process) != (NONE, NONE)
        if not fits and self._without is not Condition.ADOPT_WHAT_FITS:
            return False
        if self._without is not Condition.ADOPT_NOTHING_UNDONE:
            floor = NONE if state.head is None else state.head.position
            for entry in state.entries:
                if floor < entry.position <= process.received and entry.answer == UNDONE:
                    return False
        return True

    def _gone_back(self, state: State, number: int) -> State:
        worker, older = state.workers[number], state.older
        epoch = state.epoch + 1
        head = NONE if older is None else older.number
        state = with_worker(state, number, worker._replace(epoch=epoch, head=head, saving=None))
        synced = older is not None and older.process.ticked
        return state._replace(head=older, older=None, epoch=epoch, ready=False, recovering=True, synced=synced)

    def _restored(self, state: State, number: int, unfinished: int) -> State:
        """The head in a new process, what is behind it executed again, and what is unfinished begun again."""
        process = Process() if state.head is None else state.head.process
        effects, running, received = list(process.effects), process.running, process.received
        made = list(process.made)
        if running != NONE and state.entries[running].answer:
            effects.append(running)
            state = self._replayed(state, running)
            running = NONE
        elif running != NONE and state.recovering:
            state = executed_again(state, running, executed=False)
        behind = sorted((entry.position, seq) for seq, entry in enumerate(state.entries) if entry.position > received)
        for position, seq in behind:
            entry = state.entries[seq]
            if entry.rolled_back and self._without is not Condition.ROLLED_BACK_LEFT_OUT:
                continue
            received = position
            if entry.change:
                if self._without is not Condition.REPLAY_BEHIND_HEAD:
                    made.append(seq)
                continue
            if seq == unfinished:
                counts = self._without is not Condition.ATTEMPT_COUNTED_FIRST
                state = executed_again(state, seq, attempt=counts)
                running = seq
                continue
            left_out = entry.answer == UNDONE and self._without is not Condition.UNDONE_LEFT_OUT
            if left_out or self._without is Condition.REPLAY_BEHIND_HEAD:
                continue
            effects.append(seq)
            state = self._replayed(state, seq)
        process = Process(tuple(effects), running, received, process.ticked, tuple(made))
        worker = state.workers[number]._replace(process=process, to_send=NONE)
        return with_worker(state, number, worker)._replace(ready=True, recovering=False, made_at=number)

    def _replayed(self, state: State, seq: int) -> State:
        if state.harms == self._size.harms and self._size.poison == NONE:
            return state._replace(broken=f"{seq} is executed again, though nothing has died")
        state = executed_again(state, seq, attempt=False)
        return self._answered(state, seq, "of a replay")


def _unsent(state: State, process: Process) -> tuple[int, int]:
    """What the process was not sent: a change, and behind it an unfinished instruction; NONE for what there is not.

    Both are NONE if there is more, or something else.
    """
    entries = state.entries
    unsent = sorted(
        (seq for seq, entry in enumerate(entries) if entry.position > process.received and not entry.rolled_back),
        key=lambda seq: entries[seq].position,
    )
    to_make = unsent.pop(0) if unsent and entries[unsent[0]].change else NONE
    to_send = unsent.pop(0) if unsent and not entries[unsent[0]].answer and process.running == NONE else NONE
    return (NONE, NONE) if unsent else (to_make, to_send)
