"""Deaths of processes and of workers, and what becomes of the machine."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.support.house import PATIENCE_SECONDS, House, until

from torpor_worker.errors import CannotWake, MachineGone
from torpor_worker.ledger import EndedBy, Hold, OutputRecord
from torpor_worker.memory_ledger import MemoryLedger
from torpor_worker.sandbox import SandboxDied


@pytest.mark.parametrize("how", ["die('exit status 3')", "lose('exit status 3')"])
async def test_an_instruction_that_kills_its_process_gets_an_error_and_is_undone(house: House, how: str) -> None:
    await house.run("a = 3")
    seq = house.send(f"a = 99; {how}")
    result = await house.result(seq)
    assert "exit status 3" in str(result.error)
    assert house.entry(seq).undone
    assert await house.value("a + 5") == "8"
    assert house.machine().notices["replayed"][1] == [0]
    assert (seq, True) not in house.host.frames


async def test_the_save_before_a_death_is_restored_and_only_what_is_behind_it_runs_again(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("b = 4")
    await house.run("die()")
    assert await house.value("a + b") == "7"
    assert house.machine().replayed == [1]


async def test_a_replay_that_answers_differently_is_told_and_the_first_answer_stays(house: House) -> None:
    await house.run("a = 3")
    different = house.send("times()")
    first = await house.result(different)
    await house.run("die()")
    assert await house.value("a") == "3"
    assert house.machine().notices["differed"][1] == [different]
    assert house.entry(different).result == first


async def test_output_of_a_replay_is_not_stored_again(house: House) -> None:
    seq = house.send("print('once')")
    await house.result(seq)
    await house.run("die()")
    await house.run("1")
    assert house.output(seq) == "once\n"
    assert house.machine().background == {}


async def test_after_a_crash_of_the_worker_nothing_acknowledged_is_missing(house: House) -> None:
    for number in range(3):
        await house.run(f"l = [*globals().get('l', []), {number}]")
    await house.crash()
    await house.start()
    assert await house.value("l") == "[0, 1, 2]"
    assert house.machine().notices["replayed"][1] == [0, 1, 2]


async def test_a_machine_taken_over_with_nothing_behind_its_head_is_left_asleep(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.crash()
    await house.start()
    await until(lambda: house.worker.phase("m") is None)
    assert house.host.restored == 0
    assert await house.value("a") == "3"


async def test_what_ran_when_the_worker_crashed_runs_again_and_says_so(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("count(3) if times() > 1 else hang()")
    await until(lambda: len(house.host.frames) == 2)
    await house.crash()
    await house.start()
    assert (await house.result(seq)).value == "3"
    assert house.entry(seq).attempt == 2
    assert house.machine().notices["ran_again"][1] == [seq]


async def test_an_instruction_whose_second_attempt_ends_in_a_crash_is_undone(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("hang()")
    await until(lambda: len(house.host.frames) == 2)
    await house.crash()
    await house.start()
    await until(lambda: len(house.host.frames) == 4)
    await house.crash()
    await house.start()
    assert "2 attempts" in str((await house.result(seq)).error)
    assert house.entry(seq).undone
    assert await house.value("a") == "3"


async def test_accepted_but_not_started_runs_without_a_word_after_a_crash(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.crash()
    entry = house.ledger.accept("m", "a + 5")
    await house.start()
    assert entry.seq is not None
    assert (await house.result(entry.seq)).value == "8"
    assert "ran_again" not in house.machine().notices


async def test_a_restore_that_fails_once_is_tried_in_a_fresh_sandbox(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.host.restore_failures = 1
    assert await house.value("a") == "3"
    assert "set_aside" not in house.machine().notices


async def test_a_restore_that_hangs_is_ended_and_tried_in_a_fresh_sandbox(house: House) -> None:
    house.set(restore_seconds=0.05)
    await house.restart()
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.host.restores_that_hang = 1
    async with asyncio.timeout(30):
        assert await house.value("a") == "3"
    assert "set_aside" not in house.machine().notices


async def test_a_generation_whose_restore_hangs_each_time_gives_way_to_the_log(house: House) -> None:
    house.set(restore_seconds=0.05)
    await house.restart()
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.host.restores_that_hang = 2
    async with asyncio.timeout(30):
        assert await house.value("a") == "3"
    assert "set_aside" in house.machine().notices


async def test_a_damaged_local_image_gives_way_to_the_stored_one(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    head = house.machine().head
    assert head is not None
    with house.images.use("m", head.generation) as image:
        assert image is not None
        (image / "state").write_bytes(b"")
    house.host.restore_failures = 1
    assert await house.value("a") == "3"


async def test_a_generation_that_cannot_be_restored_gives_way_to_the_one_before(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("bad = 1")
    await house.worker.sleep("m")
    house.host.poisoned = {"bad"}
    await house.run("del bad")
    seq = house.send("a + 5")
    result = await house.result(seq)
    assert result.value == "8"
    assert "set_aside" in house.machine().notices


async def test_a_snapshot_that_is_gone_gives_way_to_the_whole_log(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.snapshotter.objects.clear()
    house.forget_local_images()
    await house.restart()
    assert await house.value("a + 5") == "8"
    assert house.machine().replayed == [0]
    assert "set_aside" in house.machine().notices


async def test_bytes_that_were_lost_on_the_way_cost_no_generation(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.forget_local_images()
    house.snapshotter.damaged_reads = 1
    await house.restart()
    assert await house.value("a + 5") == "8"
    assert house.machine().notices == {}


async def test_a_host_that_starts_nothing_costs_no_generation(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.host.restore_failures = house.host.start_failures = 5
    with pytest.raises(CannotWake):
        await house.worker.wake("m")
    assert await house.value("a") == "3"
    assert house.machine().line == 0
    assert house.machine().replayed == []


async def test_a_thread_that_kills_an_idle_machine_is_traced_to_its_instruction(house: House) -> None:
    await house.run("a = 3")
    culprit = house.send("die_later(0)")
    await house.result(culprit)
    await until(lambda: "undone" in house.machine().notices)
    assert house.machine().notices["undone"][1] == [culprit]
    assert house.entry(culprit).undone
    assert await house.value("a + 5") == "8"


async def test_a_thread_that_kills_late_is_traced_to_the_last_instruction_and_not_saved(house: House) -> None:
    house.set(quiet_save_seconds=0.001)
    await house.restart()
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("die_later(0.05)")
    await until(lambda: "undone" in house.machine().notices)
    assert await house.value("a + 5") == "8"
    await asyncio.sleep(0.1)
    assert await house.value("a + 6") == "9"


async def test_a_machine_that_dies_whatever_is_tried_is_parked_with_a_reason(house: House) -> None:
    house.set(undo_limit=0)
    await house.restart()
    await house.run("die_later(0)")
    await until(lambda: house.machine().parked)
    assert "killed by a thread" in str(house.machine().parked)
    assert not house.host.sandboxes
    with pytest.raises(MachineGone):
        await house.worker.wake("m")


async def test_killing_instructions_in_a_row_never_wedge_a_machine(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    for _ in range(7):
        assert (await house.run("die()")).error
    assert await house.value("a + 5") == "8"


async def test_killing_instructions_in_a_row_never_wedge_a_machine_that_has_done_nothing_else(house: House) -> None:
    for _ in range(7):
        assert "killed" in str((await house.run("die('killed')")).error)
    assert await house.value("1 + 1") == "2"
    assert not house.machine().parked


async def test_a_timed_out_instruction_is_interrupted_and_the_state_lives_on(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("hang()", timeout_seconds=0.01)
    result = await house.result(seq)
    assert "Timed out" in str(result.error)
    assert result.error_detail is not None
    assert result.error_detail["steps"] == ["interrupt"]
    assert house.entry(seq).ended_by is EndedBy.TIMEOUT
    assert await house.value("a + 5") == "8"
    assert house.host.restored == 0


@pytest.mark.parametrize(
    ("code", "steps"),
    [
        ("hang(1)", ["interrupt", "again"]),
        ("hang(2)", ["interrupt", "again", "kill"]),
        ("hang(2, True)", ["interrupt", "again", "kill", "remove"]),
    ],
)
async def test_each_further_step_of_a_time_out_is_in_the_result(house: House, code: str, steps: list[str]) -> None:
    await house.run("a = 3")
    result = await house.run(code, timeout_seconds=0.01)
    assert "Timed out" in str(result.error)
    assert result.error_detail is not None
    assert result.error_detail["steps"] == steps
    assert await house.value("a + 5") == "8"


async def test_interrupting_another_seq_does_nothing(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("hang()")
    await until(lambda: len(house.host.frames) == 2)
    assert await house.worker.interrupt("m", seq + 1) is None
    assert await house.worker.interrupt("m", seq) == seq
    assert "KeyboardInterrupt" in str((await house.result(seq)).error)
    assert await house.worker.interrupt("m", None) is None


async def test_an_instruction_that_has_not_begun_is_interrupted_when_it_does(house: House) -> None:
    seq = house.send("hang()")
    assert house.worker.phase("m") == "waking"
    assert await house.worker.interrupt("m", seq, coming=True) == seq
    assert "KeyboardInterrupt" in str((await house.result(seq)).error)
    assert await house.worker.interrupt("m", seq, coming=True) is None
    assert await house.value("3") == "3"


async def test_all_that_waits_can_be_interrupted(house: House) -> None:
    await house.run("3")
    *unwanted, wanted = [house.send(code) for code in ("hang()", "hang()", "hang()", "5")]
    for seq in reversed(unwanted):
        assert await house.worker.interrupt("m", seq, coming=True) == seq
    for seq in unwanted:
        assert "KeyboardInterrupt" in str((await house.result(seq)).error)
    assert (await house.result(wanted)).value == "5"


class SlowRelease(MemoryLedger):
    """Machines whose task has yet to hear that they are asleep."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.heard = asyncio.Event()

    async def release(self, hold: Hold, head: int, *, draining: bool = False) -> bool:
        released = await super().release(hold, head, draining=draining)
        self.released.set()
        await self.heard.wait()
        return released


async def test_an_interrupt_of_what_waits_is_not_lost_when_the_machine_had_just_fallen_asleep(tmp_path: Path) -> None:
    house = House(tmp_path, ledger := SlowRelease())
    ledger.create("m")
    await house.start()
    await house.run("3")
    falling_asleep = asyncio.create_task(house.worker.sleep("m"))
    await ledger.released.wait()
    seq = house.send("hang()")
    assert await house.worker.interrupt("m", seq, coming=True) == seq
    ledger.heard.set()
    assert "KeyboardInterrupt" in str((await house.result(seq)).error)
    await falling_asleep
    await house.worker.drain(PATIENCE_SECONDS)


async def test_an_interrupt_that_comes_too_late_takes_nothing_back(tmp_path: Path) -> None:
    house = House(tmp_path, ledger := SlowOutput())
    house.set(output_batch_seconds=3600)
    ledger.create("m")
    await house.start()
    await house.run("say_later('later')")
    ledger.free.clear()
    seq = house.send("a = 3; print(a)")
    await ledger.stuck.wait()  # with the background's output, while the result is there already
    assert await house.worker.interrupt("m", seq) == seq
    ledger.free.set()
    assert (await house.result(seq)).error is None
    assert house.entry(seq).ended_by is None  # else a recovery would leave it out
    await house.close()


class SlowOutput(MemoryLedger):
    """A ledger that stores output when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.stuck = asyncio.Event()

    async def append_output(
        self, hold: Hold, seq: int, attempt: int, records: list[OutputRecord], *, background: bool
    ) -> None:
        if not self.free.is_set():
            self.stuck.set()
        await self.free.wait()
        await super().append_output(hold, seq, attempt, records, background=background)


async def test_the_next_instruction_after_an_interrupt_waits_for_a_capture(house: House) -> None:
    seq = house.send("hang()")
    await until(lambda: house.host.frames)
    await house.worker.interrupt("m", seq)
    await house.run("a = 3")
    await until(lambda: house.machine().head)
    head = house.machine().head
    assert head is not None
    assert head.position == house.entry(seq).position


async def test_an_interrupted_instruction_that_no_save_has_is_not_run_again(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    house.snapshotter.failures = 100
    seq = house.send("hang()")
    await until(lambda: len(house.host.frames) == 2)
    await house.worker.interrupt("m", seq)
    await house.run("b = 4")
    await house.crash()
    house.snapshotter.failures = 0
    await house.start()
    assert await house.value("a + b") == "7"
    assert house.machine().notices["effects_lost"][1] == [seq]
    assert (seq, True) not in house.host.frames
    assert await house.worker.sleep("m")
    assert await house.value("a + b") == "7"
    assert house.machine().replayed == [2]


async def test_a_result_that_was_given_before_the_process_died_stays_an_answer(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("die_after() if times() == 1 else None; a + 5")
    assert (await house.result(seq)).value == "8"
    await until(lambda: "died" in house.events())
    assert await house.value("a") == "3"
    assert not house.entry(seq).undone


async def test_an_instruction_that_kills_right_after_its_result_each_time_is_undone(house: House) -> None:
    await house.run("a = 3")
    seq = house.send("die_after(); a + 5")
    assert (await house.result(seq)).value == "8"
    assert await house.value("a") == "3"
    assert house.entry(seq).undone


async def test_an_instruction_that_finds_its_process_dead_is_sent_to_the_next(house: House) -> None:
    await house.run("a = 3")
    (sandbox,) = house.host.sandboxes.values()
    seq = house.send("a + 5")
    with contextlib.suppress(SandboxDied):
        sandbox.die()  # before the machine's task has heard of either
    assert (await house.result(seq)).value == "8"
    assert not house.entry(seq).undone
    assert house.entry(seq).attempt == 1


@pytest.mark.parametrize("wish", ["sync", "sleep"])
async def test_a_death_in_a_save_is_recovered_and_the_wish_is_granted_afterwards(house: House, wish: str) -> None:
    await house.run("a = 3")
    house.host.checkpoint_deaths = 1
    assert await getattr(house.worker, wish)("m") in {None, True}
    assert house.machine().head is not None
    assert await house.value("a + 5") == "8"


async def test_an_entry_started_while_its_machine_was_dead_is_a_first_attempt(house: House) -> None:
    await house.run("a = 3")
    house.host.open.clear()
    await house.run("die()")
    seq = house.send("a + 5")
    assert house.entry(seq).position is not None
    house.host.open.set()
    assert (await house.result(seq)).value == "8"
    assert house.entry(seq).attempt == 1
    assert "ran_again" not in house.machine().notices
