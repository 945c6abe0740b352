"""What a recovery executes again, and what it leaves behind; and how deaths are counted over those of workers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.house import House, until
from tests.support.ledger import ACCOUNT
from tests.support.sql_house import SqlHouse

from torpor_api.ledger import MachineSettings, Point, SqlLedger
from torpor_worker.command import CommandInput, CommandSpec
from torpor_worker.ledger import Recovery


@pytest.fixture
async def sql(tmp_path: Path) -> AsyncIterator[SqlHouse]:
    """A started worker on an SQLite ledger, and a machine whose recovery is set to rollback."""
    ledger = await SqlLedger.open("sqlite:", tmp_path)
    await ledger.create_account(ACCOUNT)
    house = House(tmp_path)
    name, _ = await ledger.create_machine(
        ACCOUNT, MachineSettings(memory_mb=1024, idle_seconds=3600.0, recovery=Recovery.ROLLBACK)
    )
    sql = SqlHouse(house, ledger, name)
    await sql.start()
    yield sql
    await house.close()
    await ledger.close()


async def lost(sql: SqlHouse) -> list[list[int]]:
    notices = await sql.ledger.read_notices(sql.machine)
    return [notice.seqs for notice in notices if notice.code == "effects_lost"]


async def test_a_machine_set_to_rollback_is_brought_back_as_it_was_saved_and_nothing_runs_twice(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    first = await sql.run("a = 2; a + times()")
    assert (await sql.run("die()")).undone
    assert await sql.value("a") == "1"
    assert await lost(sql) == [[first.seq]]
    assert await sql.row(first.seq) == (again := await sql.ledger.instruction(ACCOUNT, sql.machine, first.seq))
    assert (again.result, again.rolled_back, again.replayed) == (first.result, True, False)
    assert not any(replaying for _, replaying in sql.host.frames)


async def test_what_ran_is_answered_and_what_only_waited_runs_after_a_crash_with_rollback(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    running = await sql.send("hang()")
    await until(lambda: len(sql.host.frames) == 2)
    waiting = await sql.send("a + 1")
    await sql.house.crash()
    await sql.start()
    row = await sql.row(running)
    assert row.result is not None
    assert "not run again" in str(row.result.error)
    assert row.undone
    answered = (await sql.row(waiting)).result
    assert answered is not None
    assert answered.value == "2"
    assert await lost(sql) == [[running]]


async def test_losses_that_nobody_read_of_are_not_forgotten_for_the_next(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    for _ in range(2):
        await sql.run("a = 2")
        await sql.house.crash()
        await sql.start()
        assert await sql.value("a") == "1"
        await sql.house.worker.sync(sql.machine)
    assert await lost(sql) == [[1], [3]]


async def test_what_a_recovery_has_left_behind_can_be_had_by_a_rollback_and_outlives_the_next_crash(
    sql: SqlHouse,
) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    wanted = await sql.run("a = 2")
    await sql.house.crash()
    await sql.start()
    assert await sql.value("a") == "1"
    await until(lambda: sql.house.worker.sleep(sql.machine))
    await sql.ledger.roll_back(ACCOUNT, sql.machine, Point(seq=wanted.seq), answer=lambda _: {})
    await sql.house.worker.wake(sql.machine)
    await sql.house.crash()
    await sql.start()
    assert await sql.value("a") == "2"


async def test_what_ran_in_the_save_is_ended_there_when_recovery_is_set_to_rollback(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    seq = await sql.send("count(100000, 0.01)")
    await sql.printed(seq, 4)
    await sql.house.worker.drain(30)
    await sql.start()
    await sql.printed(seq, 20)
    await sql.house.crash()
    await sql.start()
    row = await sql.row(seq)
    assert row.result is not None
    assert "not run again" in str(row.result.error)
    assert await sql.value("a") == "1"
    assert await lost(sql) == [[seq]]


async def test_a_fork_at_a_seq_is_not_cut_back_by_its_first_crash(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    wanted = await sql.run("a = 2")
    place = await sql.ledger.place_to_fork(ACCOUNT, sql.machine, Point(seq=wanted.seq))
    assert place.snapshot is not None
    [copy] = (await sql.house.worker.derive(sql.machine, place.snapshot, {"f" * 16: "copy"})).values()
    await sql.ledger.expect_copies({"f" * 16: copy.manifest_key})
    await sql.ledger.fork(ACCOUNT, sql.machine, place, {"f" * 16: copy}, tags=None, answer={})
    sql.machine = "f" * 16
    await sql.house.worker.wake(sql.machine)
    await sql.house.crash()
    await sql.start()
    assert await sql.value("a") == "2"


async def test_without_an_older_save_a_machine_set_to_rollback_is_parked_and_never_begins_empty(house: House) -> None:
    house.machine().recovery = Recovery.ROLLBACK
    await house.run("a = 3")
    await house.worker.sleep("m")
    house.snapshotter.objects.clear()
    house.forget_local_images()
    await house.restart()
    house.send("a")
    await until(lambda: house.machine().parked)
    assert "rollback" in str(house.machine().parked)


async def test_killing_instructions_in_a_row_cost_a_machine_set_to_rollback_nothing_that_is_saved(house: House) -> None:
    house.machine().recovery = Recovery.ROLLBACK
    await house.run("a = 3")
    await house.worker.sync("m")
    for _ in range(7):
        assert (await house.run("die()")).error
    assert await house.value("a + 5") == "8"


async def test_what_would_take_too_long_to_execute_again_is_left_behind_and_named(house: House) -> None:
    for number in range(4):
        await house.run(f"a = {number}")
    await house.crash()
    house.machine().replay_seconds = 0.0025  # each took a millisecond here
    await house.start()
    assert await house.value("a") == "1"
    assert house.machine().notices["effects_lost"][1] == [2, 3]
    assert house.machine().notices["replayed"][1] == [0, 1]
    await house.crash()
    await house.start()
    assert await house.value("a") == "1"


async def test_a_replay_that_is_slower_than_the_first_time_is_stopped(house: House) -> None:
    await house.run("count(20) if times() > 1 else None")
    await house.run("a = 1")
    await house.crash()
    house.machine().replay_seconds = 0.05
    await house.start()
    assert await house.value("'a' in globals()") == "False"
    assert house.machine().notices["effects_lost"][1] == [1]
    assert house.machine().notices["differed"][1] == [0]


async def test_the_first_instruction_that_answers_differently_is_named_before_all_others(house: House) -> None:
    for _ in range(3):
        await house.run("times()")
    await house.run("die()")
    await house.value("1")
    message, seqs = house.machine().notices["differed"]
    assert seqs == [0, 1, 2]
    assert "instruction 0 was the first" in message
    assert "instructions 1, 2" in message


@pytest.mark.parametrize(
    "bound",
    [{"tail_entries": 3}, {"tail_bytes": 3 * len("a = 1")}, {"tail_seconds": 0.0}],
    ids=lambda it: next(iter(it)),
)
async def test_a_long_tail_is_saved_at_the_next_gap_whatever_it_costs(house: House, bound: dict[str, float]) -> None:
    await house.run("a = 1")
    await house.worker.sync("m")
    house.set(**bound)
    await house.restart()
    for number in range(3):
        await house.run(f"a = {number}")
    await until(lambda: (head := house.machine().head) and head.generation > 0 and head.position >= 2)


async def test_deaths_are_counted_over_those_of_workers(house: House) -> None:
    """Each worker sees one death of the poisoned generation only."""
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("bad = 1")
    await house.worker.sync("m")
    house.host.poisoned = {"bad"}
    await house.crash()
    house.machine().deaths = 1
    house.machine().tries = 1
    await house.start()
    house.send("del bad")
    assert await house.value("a") == "3"
    assert "set_aside" in house.machine().notices
    assert house.machine().deaths == 0


async def test_a_generation_with_which_worker_after_worker_dies_is_set_aside(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("a = 4")
    await house.worker.sync("m")
    await house.run("b = 5")
    house.host.open.clear()  # nothing is brought back before its worker dies
    for number in range(house.config.tries_limit):
        await house.crash()
        await house.start()
        await until(lambda expected=number + 1: house.machine().tries == expected)
    await house.crash()
    house.host.open.set()
    await house.start()
    assert await house.value("a, b") == "(4, 5)"
    assert house.machine().line > 0
    assert house.machine().tries == 0


async def test_a_process_that_outlives_its_worker_for_a_while_is_not_held_against_its_generation(house: House) -> None:
    house.set(proof_seconds=0.01)
    await house.run("a = 3")
    await house.crash()
    await house.start()
    await house.worker.wake("m")
    await until(lambda: house.machine().tries == 0)
    assert house.machine().line == 0


async def test_a_machine_whose_recovery_would_need_what_has_expired_is_parked_and_says_so(house: House) -> None:
    await house.run("a = 3")
    await house.crash()
    house.machine().replace(house.entry(0), code="", expired=True)
    await house.start()
    await until(lambda: house.machine().parked)
    assert "instruction 0 is needed" in str(house.machine().parked)
    assert (0, True) not in house.host.frames


async def test_input_that_no_process_was_sent_is_given_to_what_goes_on_from_the_save(sql: SqlHouse) -> None:
    spec = CommandSpec("cat", stdin_open=True)
    reader = await sql.ledger.accept_command(ACCOUNT, sql.machine, spec, 0.0, background=True)
    sql.house.worker.deliver(sql.machine, reader.entry)
    await until(lambda: sql.host.commands == [reader.seq])
    await sql.house.worker.sync(sql.machine)
    lost_one = await sql.run("a = 1")
    given = await sql.ledger.accept_command_input(ACCOUNT, sql.machine, reader.seq, CommandInput(b"x", close=True))
    assert given.entry.position is not None  # the process dies before its worker hears of it
    await sql.house.worker.crash(sql.machine)

    assert (await sql.row(reader.seq)).result is not None
    assert await sql.output(reader.seq) == "x"
    assert await lost(sql) == [[lost_one.seq]]
