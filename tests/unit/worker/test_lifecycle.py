"""A machine's days: it runs, is saved, falls asleep, and wakes as if nothing had been."""

import asyncio
from pathlib import Path

import pytest
from tests.support.house import House, until

from torpor_worker.errors import MachineGone, SaveRefused
from torpor_worker.memory_ledger import MemoryLedger


async def test_what_one_instruction_sets_the_next_one_finds(house: House) -> None:
    await house.run("a = 3")
    assert await house.value("a + 5") == "8"


async def test_a_new_machine_is_reseeded_before_anything_runs(house: House) -> None:
    assert await house.value("len(seed)") == "32"


async def test_a_machine_that_slept_answers_as_if_it_had_not_and_leaves_no_notice(house: House) -> None:
    await house.run("a = 3")
    assert await house.worker.sleep("m")
    assert house.worker.phase("m") is None
    assert not house.host.sandboxes
    assert await house.value("a + 5") == "8"
    assert house.machine().notices == {}
    assert house.host.frames == [(0, False), (1, False)]


async def test_a_machine_wakes_from_the_store_when_the_local_disk_is_empty(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.forget_local_images()
    await house.restart()
    assert await house.value("a") == "3"


async def test_ten_sleeps_in_a_row_keep_a_counter(house: House) -> None:
    await house.run("n = 0")
    for _ in range(10):
        await house.run("n += 1")
        assert await house.worker.sleep("m")
    assert await house.value("n") == "10"


async def test_falling_asleep_without_anything_new_writes_no_image(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    await house.worker.wake("m")
    saves = house.machine().next_generation
    assert await house.worker.sleep("m")
    assert house.machine().next_generation == saves


async def test_an_idle_machine_falls_asleep_by_itself(house: House) -> None:
    house.ledger.create("n", idle_seconds=0.01)
    await house.run("a = 3", "n")
    await until(lambda: house.worker.phase("n") is None)
    assert house.events("n")[-1] == "slept"


async def test_a_machine_without_an_idle_time_stays_awake(house: House) -> None:
    house.ledger.create("n", idle_seconds=None)
    house.ledger.create("o", idle_seconds=0.01)
    await house.run("a = 3", "n")
    await house.run("a = 3", "o")
    await until(lambda: house.worker.phase("o") is None)
    assert house.worker.phase("n") == "awake"


async def test_a_busy_machine_does_not_fall_asleep(house: House) -> None:
    seq = house.send("hang()")
    await until(lambda: house.host.frames)
    assert not await house.worker.sleep("m")
    assert await house.worker.interrupt("m", None) == seq
    assert "KeyboardInterrupt" in str((await house.result(seq)).error)


async def test_a_call_while_falling_asleep_is_answered_by_the_resumed_process(house: House) -> None:
    await house.run("a = 3")
    release = asyncio.Event()
    stored = house.snapshotter.store

    async def slow_store(*arguments):  # type: ignore[no-untyped-def]
        await release.wait()
        return await stored(*arguments)

    house.snapshotter.store = slow_store  # type: ignore[method-assign]
    sleeping = asyncio.create_task(house.worker.sleep("m"))
    await until(lambda: any(sandbox.paused for sandbox in house.host.sandboxes.values()))
    assert await house.value("a + 5") == "8"
    assert not await sleeping
    release.set()
    assert await house.worker.sleep("m")
    assert await house.value("a") == "3"
    assert house.machine().notices == {}


async def test_queued_instructions_run_in_order_of_acceptance(house: House) -> None:
    seqs = [house.send(f"l = [*globals().get('l', []), {number}]") for number in range(5)]
    await house.result(seqs[-1])
    assert await house.value("l") == "[0, 1, 2, 3, 4]"


async def test_a_lost_hint_is_found_in_the_log(house: House) -> None:
    house.set(sweep_seconds=0.01, look_seconds=0.01)
    await house.restart()
    asleep = house.ledger.accept("m", "a = 3").seq
    assert asleep is not None
    await house.result(asleep)
    awake = house.ledger.accept("m", "a + 5").seq
    assert awake is not None
    assert (await house.result(awake)).value == "8"


async def test_a_hint_given_twice_runs_its_instruction_once(house: House) -> None:
    await house.run("n = 0")
    entry = house.ledger.accept("m", "n += 1")
    house.worker.deliver("m", entry)
    house.worker.deliver("m", entry)
    house.worker.deliver("m", None)
    assert entry.seq is not None
    await house.result(entry.seq)
    house.worker.deliver("m", entry)
    assert await house.value("n") == "1"


async def test_sync_saves_what_has_finished_and_is_free_when_there_is_nothing(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    head = house.machine().head
    assert head is not None
    assert head.position == 1
    await house.worker.sync("m")
    assert house.machine().head == head


async def test_background_threads_are_saved_again_on_falling_asleep(house: House) -> None:
    await house.run("background()")
    await house.worker.sync("m")
    saves = house.machine().next_generation
    assert await house.worker.sleep("m")
    assert house.machine().next_generation == saves + 1


async def test_a_machine_is_saved_when_it_was_quiet(house: House) -> None:
    house.set(quiet_save_seconds=0.01)
    await house.restart()
    await house.run("a = 3")
    await until(lambda: house.machine().head)
    assert house.worker.phase("m") == "awake"


async def test_a_machine_that_is_called_all_the_time_is_saved_too(house: House) -> None:
    house.set(quiet_save_seconds=0.05)
    await house.restart()
    await house.run("n = 0")
    async with asyncio.timeout(30):
        while house.machine().head is None:
            await house.run("n += 1")


@pytest.mark.parametrize("fault", ["disk", "store", "hang"])
async def test_a_failed_save_leaves_the_machine_awake_and_is_told_until_one_succeeds(house: House, fault: str) -> None:
    house.set(checkpoint_seconds=0.05)
    await house.restart()
    await house.run("a = 3")
    house.host.checkpoint_failures = int(fault == "disk")
    house.snapshotter.failures = int(fault == "store")
    house.host.checkpoints_hang = fault == "hang"
    with pytest.raises(SaveRefused, match="could not be saved"):
        await house.worker.sleep("m")
    house.host.checkpoints_hang = False
    assert "save_failed" in house.machine().notices
    assert house.worker.phase("m") == "awake"
    assert await house.value("a + 5") == "8"
    await house.worker.sync("m")
    assert "save_failed" not in house.machine().notices
    assert await house.worker.sleep("m")
    assert await house.value("a") == "3"


async def test_a_failed_quiet_save_is_retried_by_itself(house: House) -> None:
    house.set(quiet_save_seconds=0.01)
    await house.restart()
    house.snapshotter.failures = 3
    await house.run("a = 3")
    await until(lambda: house.machine().head)
    await until(lambda: house.machine().notices == {})


async def test_a_deleted_machine_loses_its_process_its_key_and_its_images(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    house.ledger.delete("m")
    await house.worker.discard("m")
    assert not house.host.sandboxes
    assert house.snapshotter.destroyed == {"m"}
    assert house.worker.phase("m") is None
    with pytest.raises(MachineGone):
        await house.worker.wake("m")


async def test_a_machine_that_changed_hands_is_let_go(house: House) -> None:
    await house.run("a = 3")
    house.machine().epoch += 1
    house.machine().session = "somebody else"
    with pytest.raises(MachineGone):
        await house.worker.sync("m")
    await until(lambda: not house.host.sandboxes)


async def test_over_the_memory_limit_the_longest_idle_falls_asleep(house: House) -> None:
    house.set(total_memory_bytes=100 * 1024 * 1024)
    await house.restart()
    for name in "abcd":
        house.ledger.create(name)
        await house.run("x = 1", name)
    assert [house.worker.phase(name) for name in "abcd"] == [None, "awake", "awake", "awake"]
    assert await house.value("x", "a") == "1"
    assert house.worker.phase("b") is None


async def test_when_every_machine_is_busy_a_wake_waits_its_turn(house: House) -> None:
    house.set(total_memory_bytes=40 * 1024 * 1024)
    await house.restart()
    busy = house.send("hang()")
    await until(lambda: house.host.frames)
    house.ledger.create("n")
    waiting = house.send("1", "n")
    await asyncio.sleep(0.01)
    assert house.worker.phase("n") == "waking"
    await house.worker.interrupt("m", busy)
    assert (await house.result(waiting, "n")).value == "1"


async def test_a_machine_that_falls_asleep_while_the_sweeper_reads_is_not_recovered(tmp_path: Path) -> None:
    house = House(tmp_path, ledger := SlowReads())
    house.set(sweep_seconds=0.01)
    ledger.create("m")
    await house.start()
    await house.run("a = 3")
    ledger.free.clear()
    await ledger.stuck.wait()  # the sweeper has read that the machine is awake
    assert await house.worker.sleep("m")
    await until(lambda: house.worker.phase("m") is None)
    reads = ledger.reads
    ledger.free.set()
    await until(lambda: ledger.reads >= reads + 2)
    assert house.machine().notices == {}
    assert "left_asleep" not in house.events()
    await house.close()


class SlowReads(MemoryLedger):
    """A ledger whose answers to the sweeper may be late."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.stuck = asyncio.Event()
        self.reads = 0

    async def mine(self) -> list[str]:
        """See `Ledger`."""
        names = await super().mine()
        if not self.free.is_set():
            self.stuck.set()
        await self.free.wait()
        self.reads += 1
        return names


async def test_background_output_of_an_instruction_that_the_log_does_not_know_harms_nobody(house: House) -> None:
    for number in range(4):
        await house.run(f"a = {number}")
    assert await house.worker.sleep("m")
    forked = house.machine()
    forked.log = [entry for entry in forked.log if entry.seq is None]
    await house.worker.wake("m")
    (sandbox,) = house.host.sandboxes.values()
    sandbox.print("from a thread")

    assert await house.value("a + 5") == "8"
    assert house.machine().background == {}
