"""Saves in the middle of an instruction that does not end."""

from tests.support.house import House, until


def numbers(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


async def a_save_in_the_middle(house: House, *, after: int = -1) -> int:
    """Wait for a committed save with something running in it, newer than `after`; its generation."""

    def found() -> bool:
        head = house.machine().head
        return head is not None and not head.quiescent and head.generation > after

    await until(found)
    head = house.machine().head
    assert head is not None
    return head.generation


async def test_a_machine_that_is_never_quiet_goes_on_from_the_middle_after_every_crash(house: House) -> None:
    house.set(save_interval_seconds=0.05)
    await house.restart()
    seq = house.send("count(400, 0.002)")
    generation = -1
    for _ in range(3):  # each attempt was saved again, so that none of these is the second one from the same point
        generation = await a_save_in_the_middle(house, after=generation)
        await house.crash()
        await house.start()
    assert (await house.result(seq)).value == "400"
    assert house.output(seq) == numbers(400)
    assert house.machine().notices["ran_again"][1] == [seq]
    assert house.host.frames == [(seq, False)]


async def test_an_instruction_that_dies_twice_after_the_same_save_in_its_middle_is_undone(house: House) -> None:
    await house.run("a = 3")
    house.set(save_interval_seconds=0.05)
    await house.restart()
    seq = house.send("hang()")
    await a_save_in_the_middle(house)
    house.set(save_interval_seconds=3600)
    for _ in range(2):
        await house.crash()
        await house.start()
        await until(lambda: house.entry(seq).result or house.worker.phase("m") == "awake")
    await house.crash()
    await house.start()
    assert "undone" in str((await house.result(seq)).error)
    assert await house.value("a") == "3"


async def test_output_between_a_save_and_a_crash_is_neither_lost_nor_repeated(house: House) -> None:
    house.set(save_interval_seconds=0.05)
    await house.restart()
    seq = house.send("count(300, 0.002)")
    await a_save_in_the_middle(house)
    house.snapshotter.failures = 1 << 30
    reached = house.output(seq).count("\n")
    await until(lambda: house.output(seq).count("\n") > reached + 10)
    await house.crash()
    house.snapshotter.failures = 0
    await house.start()
    await house.result(seq)
    assert house.output(seq) == numbers(300)


async def test_a_failed_save_in_the_middle_is_told_and_the_instruction_goes_on(house: House) -> None:
    house.set(save_interval_seconds=0.05)
    await house.restart()
    house.host.checkpoint_failures = 2
    seq = house.send("count(300, 0.002)")
    await until(lambda: "save_failed" in house.machine().notices)
    await a_save_in_the_middle(house)
    await house.result(seq)
    assert house.output(seq) == numbers(300)
    await until(lambda: "save_failed" not in house.machine().notices)


async def test_saves_in_the_middle_do_not_push_out_those_in_which_nothing_ran(house: House) -> None:
    for name in "ab":
        await house.run(f"{name} = 3")
        await house.worker.sync("m")
    house.set(save_interval_seconds=0.02)
    await house.restart()
    seq = house.send("hang()")
    third = await a_save_in_the_middle(house, after=await a_save_in_the_middle(house))
    kept = house.machine().snapshots
    assert [number for number, one in kept.items() if not one.quiescent] == [max(kept)]
    assert max(kept) >= third
    assert sum(one.quiescent for one in kept.values()) == 2
    await house.worker.interrupt("m", seq)
    await house.result(seq)


async def test_an_instruction_that_is_being_ended_is_not_saved_in_its_middle(house: House) -> None:
    house.set(save_interval_seconds=0.01, interrupt_again_seconds=0.2, kill_seconds=0.4, remove_seconds=30)
    await house.restart()
    seq = house.send("hang(1)")
    await a_save_in_the_middle(house)
    assert await house.worker.interrupt("m", seq) == seq
    result = await house.result(seq)
    assert result.error_detail is not None
    assert result.error_detail["steps"] == ["interrupt", "again"]
