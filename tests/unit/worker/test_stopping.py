"""Orderly stops: every machine is saved, also in the middle of an instruction."""

import asyncio

import pytest
from tests.support.house import House, until

from torpor_worker.errors import Draining, SaveRefused


async def until_more(house: House, seq: int) -> None:
    reached = house.output(seq).count("\n")
    await until(lambda: house.output(seq).count("\n") > reached or house.entry(seq).result)


async def test_an_idle_machine_is_asleep_after_a_stop_and_there_after_the_start(house: House) -> None:
    await house.run("a = 3")
    await house.restart()
    assert house.worker.phase("m") is None
    assert await house.value("a + 5") == "8"
    assert house.machine().notices == {}
    assert house.machine().replayed == []


async def test_a_loop_that_prints_numbers_goes_on_with_the_next_number(house: House) -> None:
    seq = house.send("count(60, 0.002)")
    await until(lambda: house.output(seq).count("\n") > 3)
    for _ in range(3):
        await house.restart()
        await until_more(house, seq)
    assert (await house.result(seq)).value == "60"
    assert house.output(seq) == "".join(f"{number}\n" for number in range(60))
    assert house.machine().notices == {}
    assert house.host.frames == [(seq, False)]


async def test_time_used_before_a_stop_counts_towards_the_time_out(house: House) -> None:
    seq = house.send("hang()", timeout_seconds=3600)
    await until(lambda: house.host.frames)
    await asyncio.sleep(0.02)
    await house.restart()
    head = house.machine().head
    assert head is not None
    assert head.running_seq == seq
    assert head.running_used_seconds >= 0.02
    await until(lambda: house.worker.phase("m") == "awake")
    await house.worker.interrupt("m", seq)
    await house.result(seq)


async def test_a_crash_after_a_stop_in_mid_instruction_goes_on_from_the_stop(house: House) -> None:
    seq = house.send("count(100, 0.002)")
    await until(lambda: house.output(seq).count("\n") > 3)
    await house.restart()
    reached = house.output(seq).count("\n")
    await until(lambda: house.output(seq).count("\n") > reached + 3)
    await house.crash()
    await house.start()
    assert (await house.result(seq)).value == "100"
    assert house.output(seq) == "".join(f"{number}\n" for number in range(100))
    assert house.machine().notices["ran_again"][1] == [seq]


async def test_a_finished_instruction_whose_middle_is_the_head_is_finished_again_in_a_recovery(house: House) -> None:
    seq = house.send("count(30, 0.002)")
    await until(lambda: house.output(seq).count("\n") > 3)
    await house.restart()
    await house.result(seq)
    await house.run("a = 3")
    await house.crash()
    await house.start()
    assert await house.value("a") == "3"
    assert house.machine().replayed == [seq, seq + 1]
    assert house.output(seq) == "".join(f"{number}\n" for number in range(30))


async def test_an_interrupted_instruction_whose_middle_is_the_head_is_ended_in_a_recovery(house: House) -> None:
    seq = house.send("hang()")
    await until(lambda: house.host.frames)
    await house.restart()
    await until(lambda: house.worker.phase("m") == "awake")
    house.snapshotter.failures = 100
    await until(lambda: house.machine().ready)
    assert await house.worker.interrupt("m", seq) == seq
    await house.run("a = 3")
    await house.crash()
    house.snapshotter.failures = 0
    await house.start()
    assert await house.value("a") == "3"
    assert house.machine().notices["effects_lost"][1] == [seq]


async def test_an_instruction_that_dies_after_a_stop_in_its_middle_is_undone(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("b = 4")
    seq = house.send("hang(2)")
    await until(lambda: len(house.host.frames) == 3)
    await house.restart()
    await until(lambda: house.worker.phase("m") == "awake")
    await until(lambda: house.machine().ready)
    await house.worker.interrupt("m", seq)
    assert "interrupted" in str((await house.result(seq)).error)
    assert house.entry(seq).undone
    assert await house.value("a + b") == "7"


async def test_what_is_queued_at_a_stop_runs_after_the_next_start(house: House) -> None:
    running = house.send("count(10, 0.002)")
    queued = house.send("a = 3")
    await until(lambda: house.output(running))
    await house.restart()
    await house.result(queued)
    assert await house.value("a") == "3"
    assert house.machine().notices == {}


async def test_a_started_instruction_that_was_not_delivered_is_in_the_capture(house: House) -> None:
    await house.run("a = 3")
    entry = house.ledger.accept("m", "a + 5")
    assert entry.position is not None
    await house.restart()
    assert entry.seq is not None
    assert (await house.result(entry.seq)).value == "8"
    assert house.machine().notices == {}


async def test_a_flood_does_not_hold_up_a_stop(house: House) -> None:
    seq = house.send("flood(40 << 20)")
    await until(lambda: house.output(seq))
    await house.restart()
    await house.result(seq)
    assert len(house.output(seq)) == 40 << 20


async def test_a_stop_with_a_store_that_refuses_is_ended_by_its_deadline_and_loses_nothing(house: House) -> None:
    await house.run("a = 3")
    house.snapshotter.failures = 1 << 30
    with pytest.raises(SaveRefused):
        await house.worker.drain(0.1)
    assert not house.host.sandboxes
    house.snapshotter.failures = 0
    await house.start()
    assert await house.value("a + 5") == "8"


async def test_a_stop_with_a_store_that_fails_once_succeeds(house: House) -> None:
    await house.run("a = 3")
    house.snapshotter.failures = 1
    await house.restart()
    assert await house.value("a + 5") == "8"
    assert house.machine().replayed == []


async def test_a_stopping_worker_wakes_nothing(house: House) -> None:
    await house.worker.drain(1)
    with pytest.raises(Draining):
        await house.worker.wake("m")
    house.ledger.accept("m", "1")
    house.worker.deliver("m", None)
    assert house.worker.phase("m") is None


async def test_a_stop_that_is_cut_short_leaves_no_sandbox(house: House) -> None:
    await house.run("a = 3")
    house.snapshotter.failures = 1 << 30
    stopping = asyncio.create_task(house.worker.drain(3600))
    await until(lambda: "save_failed" in house.machine().notices)
    stopping.cancel()
    await asyncio.wait([stopping])
    assert not house.host.sandboxes


async def test_a_stop_that_is_cut_short_before_it_has_begun_leaves_no_sandbox(house: House) -> None:
    await house.run("a = 3")
    stopping = asyncio.create_task(house.worker.drain(3600))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])
    assert not house.host.sandboxes


async def test_a_machine_deleted_while_its_task_ends_leaves_no_sandbox(house: House) -> None:
    for number in range(20):
        name = f"n{number}"
        house.ledger.create(name)
        await house.run("a = 3", name)
        house.ledger.delete(name)
        for _ in range(number):
            await asyncio.sleep(0)
        await house.worker.discard(name)
        assert not [sandbox for sandbox in house.host.sandboxes if sandbox.startswith(f"{name}-")]


async def test_a_stop_while_a_machine_wakes_leaves_it_asleep_and_its_call_in_the_log(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.host.open.clear()
    seq = house.send("a + 5")
    await until(lambda: house.worker.phase("m") == "waking" and house.machine().session)
    await house.worker.drain(30)
    assert house.machine().session is None
    house.host.open.set()
    await house.start()
    assert (await house.result(seq)).value == "8"
    assert house.machine().notices == {}
