"""The ledger as a state machine: its promises hold after any order of calls, with a crash at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.ledger import (
    ACCOUNT,
    accepted,
    let_years_pass,
    memory_folder,
    new_machine,
    open_ledger,
    result,
    saved,
)

from torpor_api.errors import MachineBusy
from torpor_api.ledger import Point, SqlLedger
from torpor_api.ledger.rollbacks import Unsettled
from torpor_worker.ledger import Entry, Fenced, Hold, InstructionResult, Snapshot

T = TypeVar("T")


@dataclass
class Model:
    """What was acknowledged about one machine."""

    seqs: int = 0
    order: list[int] = field(default_factory=list)
    """Seqs in the order they were started."""
    has: list[int] = field(default_factory=list)
    """Of these, the ones that no rollback has left behind."""
    in_generation: dict[int, list[int]] = field(default_factory=dict)
    """What a generation had when it was saved."""
    rollbacks: int = 0
    results: dict[int, InstructionResult] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    running: Entry | None = None
    head: Snapshot | None = None
    epochs: list[int] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    hold: Hold | None = None
    passed: list[Hold] = field(default_factory=list)
    """Holds that must never work again."""
    ready: bool = False


class Promises(RuleBasedStateMachine):
    """One machine, one worker at a time, and a server that crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = memory_folder()
        self.model = Model()

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    async def open(self) -> SqlLedger:
        return await open_ledger(Path(self.folder.name))

    @initialize()
    def begin(self) -> None:
        self.ledger = self.do(self.open())
        self.name = self.do(new_machine(self.ledger))

    def teardown(self) -> None:
        self.do(self.ledger.close())
        self.runner.close()
        self.folder.cleanup()

    def let_go(self) -> None:
        if self.model.hold is not None:
            self.model.passed.append(self.model.hold)
        self.model.hold, self.model.ready = None, False

    def held(self, hold: Hold | None) -> None:
        assert hold is not None
        self.let_go()
        self.model.hold = hold
        self.model.epochs.append(hold.epoch)

    @rule()
    def accept(self) -> None:
        model = self.model
        free = model.running is None and len(model.results) == model.seqs
        answer = self.do(accepted(self.ledger, self.name))
        assert answer.seq == model.seqs
        model.seqs += 1
        assert (answer.entry.position is not None) == (model.ready and free)
        if answer.entry.position is not None:
            self.note_start(answer.entry)

    @precondition(lambda self: self.model.hold is not None)
    @rule()
    def start_next(self) -> None:
        model = self.model
        assert model.hold is not None
        entry = self.do(self.ledger.start_next(model.hold))
        if model.running is not None:
            assert entry == model.running
        elif len(model.results) == model.seqs:
            assert entry is None
        else:
            assert entry is not None
            assert entry.seq == len(model.results)  # the oldest
            self.note_start(entry)

    def note_start(self, entry: Entry) -> None:
        assert entry.seq is not None
        self.model.order.append(entry.seq)
        self.model.has.append(entry.seq)
        assert entry.position == len(self.model.order)  # dense: position 0 is the reseed
        self.model.running = entry
        self.model.attempts[entry.seq] = 1

    @precondition(lambda self: self.model.hold is not None and self.model.running is not None)
    @rule(value=st.integers(0, 9))
    def finish(self, value: int) -> None:
        model = self.model
        assert model.hold is not None
        assert model.running is not None
        seq = model.running.seq
        assert seq is not None
        self.do(self.ledger.finish(model.hold, seq, model.attempts[seq], result(str(value))))
        model.results[seq] = result(str(value))
        model.running = None

    @precondition(lambda self: self.model.hold is not None and self.model.running is None)
    @rule()
    def run(self) -> None:
        self.accept()
        self.start_next()
        self.finish(value=0)

    @precondition(lambda self: self.model.hold is not None and self.model.results)
    @rule(data=st.data())
    def finish_again(self, data: st.DataObject) -> None:
        assert self.model.hold is not None
        seq = data.draw(st.sampled_from(sorted(self.model.results)))
        self.do(self.ledger.finish(self.model.hold, seq, self.model.attempts[seq], result("again")))

    @precondition(lambda self: self.model.hold is not None and self.model.running is not None)
    @rule()
    def try_again(self) -> None:
        model = self.model
        assert model.hold is not None
        assert model.running is not None
        seq = model.running.seq
        assert seq is not None
        model.attempts[seq] += 1
        assert self.do(self.ledger.count_attempt(model.hold, seq, 0)) == model.attempts[seq]
        model.running = self.do(self.ledger.start_next(model.hold))

    @precondition(lambda self: self.model.hold is not None)
    @rule()
    def save(self) -> None:
        model = self.model
        assert model.hold is not None
        running_seq = None if model.running is None else model.running.seq
        head = None if model.head is None else model.head.generation
        model.head = self.do(saved(self.ledger, model.hold, head, len(model.order), running_seq=running_seq))
        assert model.head.generation not in model.generations
        model.generations.append(model.head.generation)
        model.in_generation[model.head.generation] = list(model.has)

    @precondition(lambda self: self.model.hold is not None and self.model.head is not None)
    @rule(draining=st.booleans())
    def release(self, draining: bool) -> None:
        model = self.model
        assert model.hold is not None
        assert model.head is not None
        in_snapshot = model.in_generation[model.head.generation] == model.has
        running_seq = None if model.running is None else model.running.seq
        may = in_snapshot and model.head.running_seq == running_seq
        if not draining:
            may = may and len(model.results) == model.seqs
        assert self.do(self.ledger.release(model.hold, model.head.generation, draining=draining)) == may
        if may:
            self.let_go()

    @precondition(lambda self: self.model.hold is not None)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        assert self.model.hold is not None
        kept = self.do(self.ledger.generations(self.model.hold))
        to = data.draw(st.sampled_from([None, *kept]))
        self.held(self.do(self.ledger.go_back(self.model.hold, None if to is None else to.generation)))
        self.model.head = to

    def settle(self) -> None:
        """Let the machine finish everything, be saved and fall asleep."""
        model = self.model
        if model.hold is None:
            self.acquire()
        while len(model.results) < model.seqs:
            self.start_next()
            self.finish(value=1)
        self.save()
        self.release(draining=False)

    @rule(data=st.data(), settle=st.booleans())
    def roll_back(self, data: st.DataObject, settle: bool) -> None:
        model = self.model
        if settle:
            self.settle()
        kept = [row.snapshot for row in self.do(self.ledger.snapshots(ACCOUNT, self.name)) if row.snapshot.quiescent]
        if not kept:
            return
        to = data.draw(st.sampled_from(kept))
        head = model.head
        try:
            done = self.do(
                self.ledger.roll_back(ACCOUNT, self.name, Point(generation=to.generation), answer=lambda _: {})
            )
        except MachineBusy:
            assert len(model.results) < model.seqs
            return
        except Unsettled:
            settled = head is not None and head.quiescent and model.in_generation[head.generation] == model.has
            assert model.hold is not None or not settled
            return
        assert model.hold is None
        assert head is not None
        assert done.undo == head.generation
        after = model.in_generation[to.generation]
        assert done.left_behind == sorted(set(model.has) - set(after))
        model.head, model.has = to, list(after)
        model.rollbacks += 1

    @rule()
    def acquire(self) -> None:
        self.held(self.do(self.ledger.acquire(self.name)))

    @precondition(lambda self: self.model.hold is not None)
    @rule()
    def get_ready(self) -> None:
        assert self.model.hold is not None
        self.do(self.ledger.ready(self.model.hold))
        self.model.ready = True

    @rule()
    def crash(self) -> None:
        """Everything that was not committed is gone; a new server takes over."""
        was_held = self.model.hold is not None
        self.do(self.ledger.close())
        self.ledger = self.do(self.open())
        self.let_go()
        assert self.do(self.ledger.mine()) == ([self.name] if was_held else [])
        if was_held:  # a dead session's machine is to be acquired again before anything else
            self.acquire()

    @precondition(lambda self: self.model.passed)
    @rule(data=st.data())
    def act_on_a_hold_that_has_passed(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.model.passed))
        for call in (
            self.ledger.start_next(hold),
            self.ledger.finish(hold, 0, 1, result("stale")),
            self.ledger.allot_save(hold),
            self.ledger.release(hold, 0),
        ):
            try:
                self.do(call)
            except Fenced:
                continue
            raise AssertionError("a hold that has passed must not work")

    @rule()
    def let_years_pass(self) -> None:
        let_years_pass(Path(self.folder.name))
        assert self.do(self.ledger.thin_out()) == 0

    @invariant()
    def every_acknowledged_fact_is_there(self) -> None:
        rows, _ = self.do(self.ledger.instructions(ACCOUNT, self.name))
        model = self.model
        assert [row.seq for row in reversed(rows)] == list(range(model.seqs))
        assert {row.seq: row.result for row in rows if row.result} == model.results
        assert {row.seq for row in rows if row.rolled_back} == set(model.order) - set(model.has)
        machine = self.do(self.ledger.machine(ACCOUNT, self.name))
        assert machine.generation == (None if model.head is None else model.head.generation)
        assert machine.has_pending_instruction == (len(model.results) < model.seqs)
        assert (machine.state == "asleep") == (model.hold is None)
        assert (machine.state == "awake") == model.ready
        assert model.epochs == sorted(set(model.epochs))
        assert self.do(self.ledger.waiting()) == (
            [self.name] if model.hold is None and len(model.results) < model.seqs else []
        )

    @invariant()
    def the_log_is_in_order_and_has_nothing_that_was_left_behind(self) -> None:
        if self.model.hold is not None:
            entries = self.do(self.ledger.behind(self.model.hold, -1))
            order = self.model.order
            assert [entry.position for entry in entries] == [0, *(order.index(seq) + 1 for seq in self.model.has)]
            assert [entry.seq for entry in entries] == [None, *self.model.has]

    @invariant()
    def the_two_newest_quiescent_generations_are_kept(self) -> None:
        known, condemned = self.do(self.ledger.known_keys()), set(self.do(self.ledger.condemned()))
        assert not known & condemned
        if self.model.hold is not None and self.model.head is not None:
            kept = self.do(self.ledger.generations(self.model.hold))
            assert kept[0].generation == self.model.head.generation
            assert {snapshot.manifest_key for snapshot in kept} <= known
            quiescent = [snapshot for snapshot in kept if snapshot.quiescent]
            assert len(quiescent) >= 2 or kept[-1].parent is None or self.model.rollbacks


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=12, stateful_step_count=30, deadline=None, derandomize=True)
