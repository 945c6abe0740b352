"""Changes of files are entries of the log: in order, in every recovery, and never half in a save."""

import asyncio
import io
import os
import resource
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.house import House, until
from tests.support.ledger import ACCOUNT
from tests.support.sql_house import SqlHouse

from torpor_api.ledger import MachineSettings, Point, SqlLedger
from torpor_worker.bodies import Bodies, StorageFull
from torpor_worker.errors import Draining
from torpor_worker.files import Change, FileRefused, Read, TransferLost
from torpor_worker.ledger import EntryKind, Recovery


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def write(house: House, path: str, data: bytes, name: str = "m") -> None:
    async with house.worker.files.stored(ACCOUNT, _pieces(data)) as body:
        await house.worker.files.change(name, Change("write", path), body)


async def remove(house: House, path: str, name: str = "m") -> None:
    await house.worker.files.change(name, Change("remove", path), None)


async def read(house: House, path: str, name: str = "m") -> bytes:
    data = b""
    async with house.worker.files.reading(name, Read(path)) as transfer:
        while piece := await transfer.receive():
            data += piece
    return data


async def test_a_sleeping_machine_is_woken_for_its_files(house: House) -> None:
    await write(house, "a", b"1")
    assert await house.worker.sleep("m")
    assert await read(house, "/home/user/a") == b"1"
    assert house.worker.phase("m") == "awake"


async def test_an_acknowledged_write_outlives_a_crash_before_any_save(house: House) -> None:
    await write(house, "a", b"1")
    await write(house, "b", b"2")
    await remove(house, "a")
    await house.crash()
    await house.start()
    assert await house.value("content('/home/user/a'), content('/home/user/b')") == "(None, '2')"


async def test_writes_and_instructions_are_made_again_in_their_order(house: House) -> None:
    for number in range(3):
        await write(house, "a", str(number).encode())
        await house.run(f"seen{number} = content('/home/user/a')")
    await house.crash()
    await house.start()
    assert await house.value("seen0, seen1, seen2, content('/home/user/a')") == "('0', '1', '2', '2')"
    assert house.machine().notices["replayed"][1] == [0, 1, 2]


async def test_a_write_in_the_middle_of_an_instruction_is_made_in_the_middle_of_it_again(house: House) -> None:
    seq = house.send("hang()")
    await until(lambda: house.host.frames)
    await write(house, "a", b"1")
    assert await read(house, "a") == b"1"
    assert house.machine().log[-1].kind is EntryKind.FILE
    await house.crash()
    await house.start()
    await until(lambda: len(house.host.frames) == 2)
    assert await read(house, "a") == b"1"
    await house.worker.interrupt("m", seq)
    await house.result(seq)
    assert await house.value("content('/home/user/a')") == "'1'"


async def test_a_save_in_the_middle_goes_on_with_the_writes_behind_it(house: House) -> None:
    seq = house.send("count(150)")
    await until(lambda: "5\n" in house.output(seq))
    await write(house, "a", b"1")
    await house.restart()  # saved in the middle, behind the write
    await write(house, "b", b"2")
    await house.crash()
    await house.start()
    assert (await house.result(seq)).value == "150"
    assert house.output(seq) == "".join(f"{number}\n" for number in range(150))
    assert await house.value("content('/home/user/a'), content('/home/user/b')") == "('1', '2')"


async def test_what_a_save_has_is_not_made_again(house: House) -> None:
    await write(house, "a", b"1")
    await house.worker.sync("m")
    await house.bodies.remove(list(house.bodies.keys()))
    await house.crash()
    await house.start()
    assert await read(house, "a") == b"1"
    assert "changes_lost" not in house.machine().notices


async def test_a_process_that_dies_when_a_logged_change_is_made_is_given_it_again(house: House) -> None:
    house.host.apply_deaths = 1
    await write(house, "a", b"1")
    assert await read(house, "a") == b"1"
    assert "died" in house.events()


async def test_a_change_whose_machine_dies_before_it_is_logged_is_prepared_in_the_next_process(house: House) -> None:
    await house.run("a = 3")
    first = next(iter(house.host.sandboxes.values()))
    house.host.prepared.clear()
    house.host.may_prepare.clear()
    writing = asyncio.create_task(write(house, "a", b"1"))
    await house.host.prepared.wait()
    await first.crash()
    house.host.may_prepare.set()
    await writing
    assert await read(house, "a") == b"1"
    assert [entry.kind for entry in house.machine().log].count(EntryKind.FILE) == 1


async def test_a_change_that_ends_its_process_each_time_is_left_out_and_told(house: House) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    house.host.apply_deaths = 3
    await write(house, "a", b"1")
    assert await house.value("a") == "3"
    assert "home" not in house.machine().notices["changes_lost"][0]
    assert "'a'" in house.machine().notices["changes_lost"][0]
    assert house.machine().log[-2].undone


async def test_a_change_whose_body_was_lost_is_told_and_the_machine_lives(house: House) -> None:
    await write(house, "a", b"1")
    await house.bodies.remove(list(house.bodies.keys()))
    await house.crash()
    await house.start()
    assert await house.value("content('/home/user/a') is None") == "True"
    assert "'a'" in house.machine().notices["changes_lost"][0]


async def test_a_change_that_is_refused_leaves_nothing_in_the_log(house: House) -> None:
    await write(house, "folder/a", b"1")
    before = len(house.machine().log)
    with pytest.raises(FileRefused) as error:
        await remove(house, "folder")
    assert error.value.code == "folder_not_empty"
    with pytest.raises(FileRefused) as error:
        await write(house, "folder", b"")
    assert error.value.code == "is_a_folder"
    assert len(house.machine().log) == before


async def test_a_removal_that_was_refused_is_not_made_by_a_recovery(house: House) -> None:
    await write(house, "a", b"1")
    house.host.apply_refusal = FileRefused("permission_denied", "Permission denied")
    with pytest.raises(FileRefused):
        await remove(house, "a")
    await house.crash()
    await house.start()
    assert await house.value("content('/home/user/a')") == "'1'"


async def test_a_change_of_many_files_that_was_refused_in_its_middle_is_made_as_far_again(house: House) -> None:
    await write(house, "folder/a", b"1")
    house.host.apply_refusal = FileRefused("file_failed", "it took too long", half_made=True)
    with pytest.raises(FileRefused):
        await house.worker.files.change("m", Change("remove", "folder", recursive=True), None)
    assert not house.machine().log[-1].undone


async def test_a_file_for_which_there_is_no_memory_is_refused_at_once(house: House) -> None:
    house.machine().memory_bytes = house.host.sandbox_bytes + 1000
    with pytest.raises(FileRefused) as error:
        await write(house, "a", b"x" * 1001)
    assert error.value.code == "disk_full"
    await write(house, "a", b"x" * 999)


async def test_an_old_guest_says_that_it_knows_of_no_files(house: House) -> None:
    house.host.knows_files = False
    for work in (write(house, "a", b"1"), read(house, "a")):
        with pytest.raises(FileRefused) as error:
            await work
        assert error.value.code == "files_unsupported"


async def test_a_machine_stays_awake_for_whoever_reads_and_sleeps_afterwards(house: House) -> None:
    await write(house, "a", b"1" * 100_000)
    async with house.worker.files.reading("m", Read("a")) as transfer:
        assert await transfer.receive()
        assert not await house.worker.sleep("m")
    assert await house.worker.sleep("m")


async def test_a_change_that_comes_while_a_machine_falls_asleep_wakes_it_up_again(house: House) -> None:
    await house.run("a = 3")
    house.host.may_checkpoint.clear()
    sleeping = asyncio.create_task(house.worker.sleep("m"))
    await house.host.checkpointing.wait()
    writing = asyncio.create_task(write(house, "a", b"1"))
    await asyncio.sleep(0.01)
    house.host.may_checkpoint.set()
    await writing
    assert not await sleeping
    assert await read(house, "a") == b"1"


async def test_a_save_does_not_begin_while_a_change_is_half_made(house: House) -> None:
    await house.run("a = 3")
    house.host.may_apply.clear()
    writing = asyncio.create_task(write(house, "a", b"1"))
    await until(lambda: house.machine().log[-1].kind is EntryKind.FILE)
    saving = asyncio.create_task(house.worker.sync("m"))
    await asyncio.sleep(0.05)
    assert not house.host.checkpointing.is_set()
    house.host.may_apply.set()
    await writing
    await saving
    head = house.machine().head
    assert head is not None
    assert head.position == house.machine().log[-1].position


async def test_the_next_instruction_after_a_time_out_and_a_change_too_wait_for_a_capture(house: House) -> None:
    await house.run("hang()", timeout_seconds=0.01)
    await write(house, "a", b"1")
    head = house.machine().head
    assert head is not None
    await house.crash()
    await house.start()
    assert await house.value("content('/home/user/a')") == "'1'"


async def test_a_worker_that_is_killed_leaves_its_process_with_the_files(house: House) -> None:
    await house.run("a = 3")
    await write(house, "a", b"1")
    await house.die()
    await house.start()
    assert await house.value("a, content('/home/user/a')") == "(3, '1')"
    assert "adopted" in house.events()
    assert house.machine().notices == {}


async def test_a_logged_change_that_was_never_sent_is_made_by_the_next_worker(house: House) -> None:
    await house.run("a = 3")
    house.host.may_apply.clear()
    writing = asyncio.create_task(write(house, "a", b"1"))
    await until(lambda: house.machine().log[-1].kind is EntryKind.FILE)
    sandbox = next(iter(house.host.sandboxes.values()))
    sandbox._image.last_position -= 1  # as if the frame had not arrived
    await house.die()
    writing.cancel()
    house.host.may_apply.set()
    await house.start()
    assert await house.value("a, content('/home/user/a')") == "(3, '1')"
    assert "adopted" in house.events()


async def test_an_instruction_with_a_write_in_its_middle_is_adopted(house: House) -> None:
    seq = house.send("count(100)")
    await until(lambda: "5\n" in house.output(seq))
    await write(house, "a", b"1")
    await house.die()
    await house.start()
    assert (await house.result(seq)).value == "100"
    assert await read(house, "a") == b"1"
    assert "adopted" in house.events()
    assert house.machine().notices == {}


async def test_an_instruction_that_came_with_a_snapshot_behind_a_write_is_adopted(house: House) -> None:
    seq = house.send("count(200)")
    await until(lambda: "5\n" in house.output(seq))
    await write(house, "a", b"1")
    await house.restart()
    stored = len(house.output(seq))
    await until(lambda: len(house.output(seq)) > stored)
    await house.die()
    await house.start()
    assert (await house.result(seq)).value == "200"
    assert house.output(seq) == "".join(f"{number}\n" for number in range(200))
    assert "adopted" in house.events()


async def test_while_a_worker_stops_nothing_begins(house: House) -> None:
    await house.run("1")
    await house.worker.drain(10)
    with pytest.raises(Draining):
        await write(house, "a", b"1")


async def test_whoever_reads_when_the_process_dies_is_told(house: House) -> None:
    await write(house, "a", b"1" * 200_000)
    with pytest.raises(TransferLost):
        await _read_over_a_crash(house)


async def _read_over_a_crash(house: House) -> None:
    async with house.worker.files.reading("m", Read("a")) as transfer:
        await transfer.receive()
        await house.worker.crash("m")
        while await transfer.receive():
            pass


async def test_an_archive_is_unpacked_and_made_again(house: House) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("x")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    async with house.worker.files.stored(ACCOUNT, _pieces(archive.getvalue())) as body:
        await house.worker.files.change("m", Change("unpack", "folder"), body)
    await house.crash()
    await house.start()
    assert await read(house, "folder/x") == b"abc"


async def test_a_full_disk_of_the_servers_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFull):
            async with bodies.stored(ACCOUNT, _pieces(b"x" * 200_000)):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
    async with bodies.stored(ACCOUNT, _pieces(b"x" * 200_000)) as body:
        assert list(bodies.keys()) == []  # it is in use
        assert b"".join([piece async for piece in bodies.pieces(body.key)]) == b"x" * 200_000
    assert list(bodies.keys()) == [body.key]


# On the real ledger.


@pytest.fixture(params=[Recovery.REPLAY, Recovery.ROLLBACK])
async def sql(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SqlHouse]:
    """A started worker on an SQLite ledger, and a machine with either recovery."""
    ledger = await SqlLedger.open("sqlite:", tmp_path)
    await ledger.create_account(ACCOUNT)
    house = House(tmp_path)
    name, _ = await ledger.create_machine(
        ACCOUNT, MachineSettings(memory_mb=1024, idle_seconds=3600.0, recovery=request.param)
    )
    sql = SqlHouse(house, ledger, name)
    await sql.start()
    yield sql
    await house.close()
    await ledger.close()


async def test_no_acknowledged_write_is_lost_whichever_the_recovery_is(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    await write(sql.house, "before", b"1", sql.machine)
    await sql.run("a = 2")
    await write(sql.house, "behind", b"2", sql.machine)
    await remove(sql.house, "before", sql.machine)
    await write(sql.house, "last", b"3", sql.machine)
    for _ in range(2):
        await sql.house.crash()
        await sql.start()
        assert await read(sql.house, "behind", sql.machine) == b"2"
        assert await read(sql.house, "last", sql.machine) == b"3"
        with pytest.raises(FileRefused):
            await read(sql.house, "before", sql.machine)


async def test_a_rollback_to_a_seq_has_the_writes_before_it_and_not_those_behind(sql: SqlHouse) -> None:
    await sql.run("a = 1")
    await sql.house.worker.sync(sql.machine)
    await write(sql.house, "before", b"1", sql.machine)
    middle = await sql.run("a = 2")
    await write(sql.house, "behind", b"2", sql.machine)
    assert await sql.house.worker.sleep(sql.machine)
    await sql.ledger.roll_back(ACCOUNT, sql.machine, Point(seq=middle.seq), answer=lambda _: {})
    assert await read(sql.house, "before", sql.machine) == b"1"
    with pytest.raises(FileRefused):
        await read(sql.house, "behind", sql.machine)
    assert await sql.value("a") == "2"
    await sql.house.crash()
    await sql.start()
    assert await read(sql.house, "before", sql.machine) == b"1"
