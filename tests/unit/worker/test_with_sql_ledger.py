"""The worker on the ledger that it really has: what the in-memory twin promises is what SQL does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.house import PATIENCE_SECONDS, House, until
from tests.support.ledger import ACCOUNT, new_machine
from tests.support.sql_house import SqlHouse

from torpor_api.ledger import Point, SqlLedger
from torpor_worker.command import CommandInput, CommandSpec


@pytest.fixture
async def sql(tmp_path: Path) -> AsyncIterator[SqlHouse]:
    """A started worker on an SQLite ledger with one machine."""
    ledger = await SqlLedger.open("sqlite:", tmp_path)
    await ledger.create_account(ACCOUNT)
    house = House(tmp_path)
    sql = SqlHouse(house, ledger, await new_machine(ledger))
    await sql.start()
    yield sql
    await house.close()
    await ledger.close()


async def test_a_machine_runs_sleeps_and_wakes(sql: SqlHouse) -> None:
    await sql.run("a = 3; print('hello')")
    assert await sql.output(0) == "hello\n"
    assert await sql.house.worker.sleep(sql.machine)
    assert await sql.value("a + 5") == "8"
    assert await sql.notices() == []


async def test_a_death_is_answered_and_replayed(sql: SqlHouse) -> None:
    await sql.run("a = 3")
    died = await sql.run("print('last words'); die('exit status 3')")
    assert died.undone
    assert await sql.output(died.seq) == "last words\n"
    assert await sql.value("a + 5") == "8"
    assert await sql.notices() == ["replayed"]
    assert (await sql.ledger.instruction(ACCOUNT, sql.machine, 0)).replayed


async def test_output_goes_on_across_stops_and_crashes(sql: SqlHouse) -> None:
    counted = "".join(f"{number}\n" for number in range(150))
    seq = await sql.send("count(150, 0.002)")
    for crash in (False, True, False):
        reached = len(await sql.output(seq))
        await sql.printed(seq, min(reached + 20, len(counted)))
        if crash:
            await sql.house.crash()
        else:
            await sql.house.worker.drain(PATIENCE_SECONDS)
        await sql.start()
    row = await sql.row(seq)
    assert row.result is not None
    assert row.result.value == "150"
    assert await sql.output(seq) == counted


async def test_background_output_is_kept_under_the_instruction_that_ran_last_even_after_a_sleep(sql: SqlHouse) -> None:
    await sql.run("say_later('from behind')")
    await sql.printed(0, len("from behind\n"), background=True)
    await sql.house.worker.sleep(sql.machine)
    await sql.house.worker.wake(sql.machine)
    [sandbox] = sql.host.sandboxes.values()
    sandbox.print("after the sleep")
    await sql.printed(0, len("from behind\nafter the sleep\n"), background=True)
    assert await sql.output(0) == ""


async def test_a_time_out_is_captured_and_never_runs_again(sql: SqlHouse) -> None:
    await sql.run("a = 3")
    row = await sql.run("hang()", timeout_seconds=0.01)
    assert row.result is not None
    assert "Timed out" in str(row.result.error)
    assert await sql.value("a") == "3"
    await sql.house.worker.sync(sql.machine)
    await sql.house.crash()
    await sql.start()
    assert await sql.value("a") == "3"
    assert sql.host.frames == [(0, False), (1, False), (2, False), (3, False)]


async def test_an_unusable_generation_gives_way_to_the_whole_log(sql: SqlHouse) -> None:
    await sql.run("a = 3")
    await sql.house.worker.sleep(sql.machine)
    sql.house.snapshotter.objects.clear()
    sql.house.forget_local_images()
    await sql.house.worker.drain(PATIENCE_SECONDS)
    await sql.start()
    assert await sql.value("a + 5") == "8"
    assert sorted(await sql.notices()) == ["replayed", "set_aside"]


async def test_a_machine_that_cannot_live_is_parked(sql: SqlHouse) -> None:
    sql.house.set(undo_limit=0)
    await sql.house.worker.drain(PATIENCE_SECONDS)
    await sql.start()
    await sql.run("die_later(0)")

    async def parked() -> bool:
        return (await sql.ledger.machine(ACCOUNT, sql.machine)).state == "parked"

    await until(parked)
    await until(lambda: not sql.host.sandboxes)


async def test_a_fork_whose_beginning_cannot_be_used_is_parked_and_never_begins_empty(sql: SqlHouse) -> None:
    await sql.run("a = 3")
    await sql.house.worker.sleep(sql.machine)
    place = await sql.ledger.place_to_fork(ACCOUNT, sql.machine, None)
    assert place.snapshot is not None
    [copy] = (await sql.house.worker.derive(sql.machine, place.snapshot, {"f" * 16: "copy"})).values()
    await sql.ledger.expect_copies({"f" * 16: copy.manifest_key})
    await sql.ledger.fork(ACCOUNT, sql.machine, place, {"f" * 16: copy}, tags=None, answer={})
    await sql.ledger.delete_machine(ACCOUNT, sql.machine)
    await sql.house.worker.discard(sql.machine)
    sql.machine = "f" * 16
    assert await sql.value("a + 5") == "8"
    await sql.house.worker.sleep(sql.machine)

    sql.house.snapshotter.objects.clear()
    sql.house.forget_local_images()
    await sql.house.worker.drain(PATIENCE_SECONDS)
    await sql.start()
    await sql.run("a + 5")
    assert (await sql.ledger.machine(ACCOUNT, sql.machine)).state == "parked"


async def test_a_deleted_machine_is_let_go(sql: SqlHouse) -> None:
    await sql.run("a = 3")
    await sql.ledger.delete_machine(ACCOUNT, sql.machine)
    await sql.house.worker.discard(sql.machine)
    assert not sql.host.sandboxes


async def test_a_rollback_does_not_wait_for_the_end_of_a_command_that_came_behind_its_point(sql: SqlHouse) -> None:
    spec = CommandSpec("echo up; cat; echo over", stdin_open=True)
    reader = await sql.ledger.accept_command(ACCOUNT, sql.machine, spec, 0.0, background=True)
    sql.house.worker.deliver(sql.machine, reader.entry)
    await sql.printed(reader.seq, 3)
    point = await sql.run("a = 1")
    given = await sql.ledger.accept_command_input(ACCOUNT, sql.machine, reader.seq, CommandInput(b"", close=True))
    sql.house.worker.deliver(sql.machine, given.entry)
    ended = await sql.row(reader.seq)
    await until(lambda: sql.house.worker.sleep(sql.machine))
    await sql.ledger.roll_back(ACCOUNT, sql.machine, Point(seq=point.seq), answer=lambda _: {})
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await sql.value("a") == "1"

    assert loop.time() - began < 3
    assert (await sql.row(reader.seq)).result == ended.result
    assert await sql.output(reader.seq) == "up\nover\n"
    assert sql.host.commands == [reader.seq, reader.seq]
    assert await sql.notices() == ["replayed"]
