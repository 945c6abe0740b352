"""Machines whose results are acknowledged only after a save that contains them."""

import asyncio

import pytest
from tests.support.house import House, until

from torpor_worker.ledger import Durability


@pytest.fixture
async def careful(house: House) -> House:
    """Machine `m` saves before it answers."""
    house.machine().durability = Durability.INSTRUCTION
    return house


async def test_a_result_is_in_the_log_only_with_a_save_that_contains_it(careful: House) -> None:
    for number in range(3):
        seq = careful.send(f"print('said'); say_later('behind it'); {number}")
        assert (await careful.result(seq)).value == str(number)
        head = careful.machine().head
        assert head is not None
        assert head.quiescent
        assert head.position == careful.entry(seq).position
        assert careful.output(seq) == "said\n"
    await until(lambda: careful.machine().background.get(seq))


async def test_after_a_crash_nothing_is_executed_again(careful: House) -> None:
    for number in range(3):
        await careful.run(f"l = [*globals().get('l', []), {number}]")
    await careful.crash()
    await careful.start()
    assert await careful.value("l") == "[0, 1, 2]"
    assert careful.machine().replayed == []
    assert set(careful.machine().notices) <= {"restored"}


async def test_what_the_guest_says_again_after_a_wake_changes_nothing(careful: House) -> None:
    seq = careful.send("print('said'); 1")
    await careful.result(seq)
    await careful.crash()
    await careful.start()
    assert await careful.value("2") == "2"
    assert careful.output(seq) == "said\n"
    assert careful.machine().background == {}


async def test_while_the_store_refuses_there_is_no_answer_and_a_notice_says_why(careful: House) -> None:
    careful.snapshotter.failures = 1 << 30
    seq = careful.send("a = 3; print(a)")
    await until(lambda: "save_failed" in careful.machine().notices)
    assert careful.entry(seq).result is None
    assert careful.output(seq) == "3\n"
    assert await careful.worker.interrupt("m", seq) == seq  # too late: it has ended
    careful.snapshotter.failures = 0
    assert (await careful.result(seq)).error is None
    assert careful.entry(seq).ended_by is None
    await until(lambda: "save_failed" not in careful.machine().notices)
    assert await careful.value("a") == "3"


async def test_an_instruction_that_waits_for_its_save_is_answered_when_that_is_not_wanted_any_more(
    careful: House,
) -> None:
    careful.snapshotter.failures = 1 << 30
    seq = careful.send("a = 3; a")
    await until(lambda: "save_failed" in careful.machine().notices)
    careful.machine().durability = Durability.INTERVAL
    careful.worker.change_settings("m")
    assert (await careful.result(seq)).value == "3"


async def test_a_crash_before_the_save_runs_the_instruction_again_as_it_was_never_answered(careful: House) -> None:
    await careful.run("n = 0")
    careful.snapshotter.failures = 1 << 30
    seq = careful.send("n += 1; n")
    await until(lambda: "save_failed" in careful.machine().notices)
    await careful.crash()
    careful.snapshotter.failures = 0
    await careful.start()
    assert (await careful.result(seq)).value == "1"
    assert careful.machine().notices["ran_again"][1] == [seq]


async def test_a_process_that_ends_before_its_save_was_never_answered_and_is_undone(careful: House) -> None:
    await careful.run("a = 3")
    seq = careful.send("a = 4; die_after()")
    assert "ended" in str((await careful.result(seq)).error)
    assert careful.entry(seq).undone
    assert await careful.value("a") == "3"
    assert careful.machine().replayed == []


async def test_a_timed_out_instruction_is_saved_before_its_answer_too(careful: House) -> None:
    result = await careful.run("hang()", timeout_seconds=0.05)
    assert "Timed out" in str(result.error)
    await careful.crash()
    await careful.start()
    await careful.run("1")
    assert "effects_lost" not in careful.machine().notices


async def test_a_stop_in_the_middle_of_a_long_instruction_goes_on_with_it(careful: House) -> None:
    seq = careful.send("count(60, 0.002)")
    await until(lambda: careful.output(seq).count("\n") > 3)
    await careful.restart()
    await careful.result(seq)
    assert careful.output(seq) == "".join(f"{number}\n" for number in range(60))
    await careful.crash()
    await careful.start()
    assert await careful.value("1") == "1"
    assert careful.machine().replayed == []


async def test_settings_change_while_a_machine_is_awake(house: House) -> None:
    await house.run("a = 3")
    house.machine().idle_seconds = 0.01
    house.machine().memory_bytes = 2 << 30
    (sandbox,) = house.host.sandboxes.values()
    house.worker.change_settings("m")
    await until(lambda: house.worker.phase("m") is None)
    assert sandbox.limits.memory_bytes == 2 << 30
    assert await house.value("a") == "3"


async def test_settings_that_change_while_a_machine_wakes_are_not_missed(house: House) -> None:
    house.host.open.clear()
    seq = house.send("1")
    await until(lambda: house.machine().session)
    await asyncio.sleep(0.01)
    house.machine().memory_bytes = 2 << 30
    house.worker.change_settings("m")
    house.host.open.set()
    await house.result(seq)
    await until(lambda: [one.limits.memory_bytes for one in house.host.sandboxes.values()] == [2 << 30])
