"""What instructions wait for their own machine's saves, and what they do not wait for."""

import asyncio

from tests.support.house import House, until

from torpor_worker.hold_ups import HoldUps

HELD_SECONDS = 0.05


async def begin_a_save(house: House) -> "asyncio.Task[None]":
    """Somebody asks for a save, which is captured until `may_checkpoint` is set."""
    house.host.may_checkpoint.clear()
    house.host.checkpointing.clear()
    saving = asyncio.create_task(house.worker.sync("m"))
    await house.host.checkpointing.wait()
    return saving


async def test_an_instruction_that_comes_during_a_capture_says_how_long_that_held_it_up(house: House) -> None:
    await house.run("a = 3")
    saving = await begin_a_save(house)
    seq = house.send("a + 5")
    await asyncio.sleep(HELD_SECONDS)
    house.host.may_checkpoint.set()
    assert (await house.result(seq)).value == "8"
    await saving
    assert house.machine().waited_for_save_ms[seq] >= HELD_SECONDS * 1000 / 2
    await house.run("a")
    assert house.machine().waited_for_save_ms == {0: 0, 1: house.machine().waited_for_save_ms[seq], 2: 0}


async def test_a_capture_in_the_middle_of_an_instruction_holds_that_up(house: House) -> None:
    house.set(save_interval_seconds=0.05)
    await house.restart()
    house.host.may_checkpoint.clear()
    seq = house.send("count(50, 0.002)")
    await house.host.checkpointing.wait()
    await asyncio.sleep(HELD_SECONDS)
    house.host.may_checkpoint.set()
    await house.result(seq)
    assert house.machine().waited_for_save_ms[seq] >= HELD_SECONDS * 1000 / 2


async def test_another_machine_runs_while_one_is_captured_and_stored(house: House) -> None:
    house.ledger.create("n", idle_seconds=3600)
    await house.run("a = 3")
    await house.run("b = 4", "n")
    saving = await begin_a_save(house)
    assert await house.value("b + 5", "n") == "9"
    assert house.machine("n").waited_for_save_ms == {0: 0, 1: 0}
    house.host.may_checkpoint.set()
    await saving


async def test_an_instruction_does_not_wait_until_its_machine_is_stored(house: House) -> None:
    await house.run("a = 3")
    house.snapshotter.failures = 1 << 30
    saving = asyncio.create_task(house.worker.sync("m"))
    await until(lambda: "save_failed" in house.machine().notices)
    assert await house.value("a + 5") == "8"
    await asyncio.gather(saving, return_exceptions=True)


def test_only_the_part_of_a_hold_up_after_the_call_counts() -> None:
    times = iter((10.0, 12.0, 20.0, 21.0))
    hold_ups = HoldUps(lambda: next(times))
    for _ in range(2):
        with hold_ups.one():
            pass
    assert hold_ups.seconds_since(0) == 3
    assert hold_ups.seconds_since(11) == 2
    assert hold_ups.seconds_since(12) == 1
    assert hold_ups.seconds_since(30) == 0


def test_what_ended_before_an_instruction_did_holds_up_none_that_comes_after_it() -> None:
    times = iter((10.0, 12.0, 20.0, 21.0))
    hold_ups = HoldUps(lambda: next(times))
    with hold_ups.one():
        pass
    hold_ups.forget()
    with hold_ups.one():
        pass
    assert hold_ups.seconds_since(0) == 1
