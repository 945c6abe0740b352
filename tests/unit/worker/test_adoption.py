"""A worker is killed, its sandboxes are not: the next one goes on with them."""

import dataclasses

import pytest
from tests.support.house import House, until

from torpor_worker.adopting import Misfit, judge
from torpor_worker.ledger import EndedBy, Entry, EntryKind, Hold, InstructionResult
from torpor_worker.sandbox import GuestState
from torpor_worker.survivors import Clock, ProcessFacts


async def awake(house: House) -> None:
    await until(lambda: house.worker.phase("m") == "awake")


async def test_a_process_that_outlived_its_worker_is_gone_on_with_and_nothing_is_executed_again(house: House) -> None:
    await house.run("a = 3")
    await house.die()
    await house.start()
    assert await house.value("a + 5") == "8"
    assert house.machine().notices == {}
    assert "adopted" in house.events()
    assert [seq for seq, _ in house.host.frames] == [0, 1]


async def test_an_instruction_in_the_middle_goes_on_and_each_number_is_there_once(house: House) -> None:
    seq = house.send("count(60)")
    await until(lambda: "5\n" in house.output(seq))
    await house.die()
    before = house.output(seq)
    await house.start()
    assert (await house.result(seq)).value == "60"
    assert house.output(seq) == "".join(f"{number}\n" for number in range(60))
    assert house.output(seq).startswith(before)
    assert house.entry(seq).attempt == 1
    assert house.machine().notices == {}


async def test_what_ended_while_nobody_was_there_is_answered_with_all_of_its_output(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("count(3, 0.05)")
    await until(lambda: len(house.host.frames) == 2)
    await house.die()
    sandbox = next(iter(house.host.sandboxes.values()))
    await until(lambda: not sandbox._tasks)
    await house.start()
    assert (await house.result(seq)).value == "3"
    assert house.output(seq) == "0\n1\n2\n"


async def test_output_of_the_background_is_stored_once(house: House) -> None:
    await house.run("say_later('one'); print('now')")
    await until(lambda: 0 in house.machine().background)
    await house.die()
    await house.start()
    await awake(house)
    await house.run("1")
    assert [record.data for record in house.machine().background[0]] == [b"one\n"]


async def test_what_came_with_a_snapshot_goes_on_under_its_attempt(house: House) -> None:
    seq = house.send("count(200)")
    await until(lambda: "5\n" in house.output(seq))
    await house.restart()
    stored = len(house.output(seq))
    await until(lambda: len(house.output(seq)) > stored)
    await house.die()
    await house.start()
    assert (await house.result(seq)).value == "200"
    assert house.output(seq) == "".join(f"{number}\n" for number in range(200))
    assert house.events().count("adopted") == 1


async def test_an_instruction_that_was_started_and_never_sent_is_sent_without_a_word(house: House) -> None:
    await house.run("a = 3")
    await until(lambda: house.machine().ready)
    await house.die()
    entry = house.ledger.accept("m", "a + 5")
    assert entry.position is not None
    assert entry.seq is not None
    await house.start()
    assert (await house.result(entry.seq)).value == "8"
    assert house.machine().notices == {}
    assert house.entry(entry.seq).attempt == 1


async def test_a_frozen_process_runs_on(house: House) -> None:
    await house.run("a = 3; background()")
    await next(iter(house.host.sandboxes.values())).pause()
    await house.die()
    await house.start()
    assert await house.value("a + 5") == "8"


async def test_a_process_that_does_not_answer_is_recovered_from_the_log(house: House) -> None:
    await house.run("a = 3")
    await house.die()
    house.host.adopt_failures = 1
    await house.start()
    assert await house.value("a + 5") == "8"
    assert house.machine().replayed == [0]
    assert len(house.host.sandboxes) == 1


async def test_a_machine_that_fell_asleep_is_not_believed_to_be_awake(house: House) -> None:
    await house.run("a = 3")
    await house.die()
    house.machine().session = None
    await house.start()
    assert house.host.sandboxes == {}


async def test_of_two_processes_of_one_machine_none_is_believed(house: House) -> None:
    await house.run("a = 3")
    sandbox = next(iter(house.host.sandboxes.values()))
    second = await house.host.start("m", sandbox.limits)
    assert sandbox.facts is not None
    await second.remember(sandbox.facts)
    await house.die()
    await house.start()
    assert await house.value("a + 5") == "8"
    assert house.machine().replayed == [0]


async def test_without_the_setting_sandboxes_are_removed(house: House) -> None:
    await house.run("a = 3")
    await house.die()
    house.set(adopt=False)
    await house.start()
    assert await house.value("a + 5") == "8"
    assert house.machine().replayed == [0]


async def test_a_process_that_was_taken_over_is_saved_sleeps_and_dies_like_any_other(house: House) -> None:
    await house.run("a = 3")
    await house.die()
    await house.start()
    await awake(house)
    await house.worker.sleep("m")
    assert house.host.sandboxes == {}
    assert await house.value("a") == "3"
    await house.die()
    await house.start()
    await house.run("die()")
    assert await house.value("a") == "3"


async def test_a_machine_deleted_before_its_process_was_taken_over_leaves_none(house: House) -> None:
    await house.run("a = 3")
    await house.die()
    await house.start()
    house.ledger.delete("m")
    await house.worker.discard("m")
    assert house.host.sandboxes == {}


# What is believed, and what is not.

RESULT = InstructionResult(None, {}, None, None, 1)
HOLD = Hold("m", "account", 7, 0, None, 1 << 30, None, {})
FACTS = ProcessFacts("m", 5, 0, position=0)


def entry(position: int, **changes: object) -> Entry:
    """A finished instruction whose seq is one less than its position."""
    made = Entry(position, EntryKind.EXECUTE, position - 1, position, 1, timeout_seconds=15, result=RESULT)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


LOG = [entry(1), entry(2), entry(3, result=None)]


@pytest.mark.parametrize(
    ("hold", "state", "entries"),
    [
        (dataclasses.replace(HOLD, line=1), GuestState(3, 2, False), LOG),
        (dataclasses.replace(HOLD, epoch=5), GuestState(3, 2, False), LOG),
        (dataclasses.replace(HOLD, machine="n"), GuestState(3, 2, False), LOG),
        (HOLD, GuestState(4, 2, False), LOG),
        (HOLD, GuestState(1, None, False), LOG),
        (HOLD, GuestState(2, 1, False), LOG),
        (HOLD, GuestState(3, 1, False), LOG),
        (HOLD, GuestState(3, None, False), [entry(1), entry(2, undone=True), entry(3)]),
        (HOLD, GuestState(3, None, False), [entry(1), entry(2, result=None), entry(3)]),
    ],
    ids=[
        "rolled back",
        "under its own epoch",
        "another machine's",
        "ahead of the log",
        "behind what has a result",
        "runs what has its result",
        "runs something else",
        "was sent what was undone",
        "two without a result",
    ],
)
def test_facts_that_do_not_fit_the_log_are_refused(hold: Hold, state: GuestState, entries: list[Entry]) -> None:
    with pytest.raises(Misfit):
        judge(hold, FACTS, state, entries, [], was_frozen=False)


def test_the_instruction_that_runs_has_used_what_the_guest_says() -> None:
    state = GuestState(3, 2, False, running_seconds=4.0)
    adoption = judge(HOLD, FACTS, state, LOG, [], was_frozen=False)
    assert (adoption.running, adoption.used_seconds) == (LOG[-1], 4.0)
    clocked = dataclasses.replace(FACTS, clock=Clock(2, used_seconds=9.0, guest_seconds=3.0))
    assert judge(HOLD, clocked, state, LOG, [], was_frozen=False).used_seconds == 10.0
    assert judge(HOLD, clocked, state, LOG, [], was_frozen=True).used_seconds == 9.0
    assert judge(HOLD, FACTS, GuestState(3, None, False, 0.0), LOG, [], was_frozen=False).used_seconds == 0.0


def test_what_must_not_run_again_is_captured_before_the_next_frame() -> None:
    ended = [entry(1), entry(2, ended_by=EndedBy.TIMEOUT)]
    assert judge(HOLD, FACTS, GuestState(2, None, False), ended, [], was_frozen=False).capture_first
    assert not judge(
        HOLD, FACTS, GuestState(2, None, False), [*ended[:1], entry(2)], [], was_frozen=False
    ).capture_first
