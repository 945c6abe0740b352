"""Work on files that comes, or is given up, in the middle of a machine's own steps."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar, cast

import pytest
from tests.support.house import House, until
from tests.support.ledger import ACCOUNT

from torpor_worker.changing import Changes, Prepared
from torpor_worker.errors import FellAsleep
from torpor_worker.fake_sandbox import FakeSandbox
from torpor_worker.files import Change, FileRefused, FileTransfer, Look, Read, TransferLost
from torpor_worker.ledger import Entry, Fenced, Hold
from torpor_worker.machine_files import CHANGES_LIMIT, READS_LIMIT
from torpor_worker.memory_ledger import MemoryLedger

T = TypeVar("T")


class SlowLedger(MemoryLedger):
    """Is late to tell that it has written something."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()
        """Set by every release, and every change that is logged."""
        self.may_tell = asyncio.Event()
        """While it is not set, nobody hears of those."""
        self.may_tell.set()
        self.fences = 0
        """So many changes find, when they are to be undone, that their hold has passed."""

    async def release(self, hold: Hold, head: int, *, draining: bool = False) -> bool:
        """See `Ledger`."""
        return await self._late(await super().release(hold, head, draining=draining))

    async def log_change(
        self, hold: Hold, text: str, body: str | None, body_bytes: int, *, behind: int
    ) -> Entry | None:
        """See `Ledger`."""
        return await self._late(await super().log_change(hold, text, body, body_bytes, behind=behind))

    async def undo_change(self, hold: Hold, position: int) -> None:
        """See `Ledger`."""
        if self.fences:
            self.fences -= 1
            raise Fenced("the machine was brought back meanwhile")
        await super().undo_change(hold, position)

    async def _late(self, answer: T) -> T:
        self.written.set()
        await self.may_tell.wait()
        return answer


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A host with one machine, `m`, a worker that was started, and a slow ledger."""
    house = House(tmp_path, SlowLedger())
    house.ledger.create("m", idle_seconds=3600)
    await house.start()
    yield house
    await house.close()


def slow(house: House) -> SlowLedger:
    return cast(SlowLedger, house.ledger)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def write(house: House, path: str, data: bytes, name: str = "m") -> None:
    async with house.worker.files.stored(ACCOUNT, _pieces(data)) as body:
        await house.worker.files.change(name, Change("write", path), body)


async def read_slowly(house: House, path: str) -> bytes:
    async with house.worker.files.reading("m", Read(path)) as transfer:
        await asyncio.sleep(0.02)
        return await transfer.receive()


@pytest.mark.parametrize("is_saved", [False, True])
async def test_whoever_reads_while_a_machine_is_released_reads_of_the_next_process(
    house: House, is_saved: bool
) -> None:
    await write(house, "a", b"1")
    if is_saved:  # it is released as it is, and never paused
        await house.worker.sync("m")
    slow(house).written.clear()
    slow(house).may_tell.clear()
    sleeping = asyncio.create_task(house.worker.sleep("m"))
    await slow(house).written.wait()
    reading = asyncio.create_task(read_slowly(house, "a"))
    await asyncio.sleep(0.01)
    slow(house).may_tell.set()
    assert await reading == b"1"
    assert await sleeping


async def test_a_machine_that_is_as_it_was_saved_does_not_leave_whoever_came_at_last(house: House) -> None:
    await write(house, "a", b"1")
    await house.worker.sync("m")
    house.host.pinged.clear()
    house.host.may_answer.clear()
    sleeping = asyncio.create_task(house.worker.sleep("m"))
    await house.host.pinged.wait()
    reading = asyncio.create_task(read_slowly(house, "a"))
    await asyncio.sleep(0.01)
    house.host.may_answer.set()
    assert await reading == b"1"
    assert not await sleeping


async def test_a_change_that_is_given_up_while_it_is_logged_is_never_made(house: House) -> None:
    await house.run("1")
    slow(house).written.clear()
    slow(house).may_tell.clear()
    writing = asyncio.create_task(write(house, "a", b"1"))
    await slow(house).written.wait()
    writing.cancel()
    await asyncio.wait([writing])
    slow(house).may_tell.set()
    assert await house.value("content('/home/user/a')") is None
    await house.crash()
    await house.start()
    assert await house.value("content('/home/user/a')") is None
    assert "differed" not in house.machine().notices


async def test_a_refusal_whose_machine_was_brought_back_meanwhile_is_tried_again(house: House) -> None:
    house.host.apply_refusal = FileRefused("disk_full", "No space left on device")
    slow(house).fences = 1
    await write(house, "a", b"1")
    assert await house.value("content('/home/user/a')") == "'1'"


async def test_a_refusal_whose_machine_is_brought_back_each_time_is_told(house: House) -> None:
    slow(house).fences = 100

    async def refuse() -> None:
        while True:
            house.host.apply_refusal = FileRefused("disk_full", "No space left on device")
            await asyncio.sleep(0)

    refusing = asyncio.create_task(refuse())
    with pytest.raises(TransferLost):
        await write(house, "a", b"1")
    refusing.cancel()


async def test_a_change_that_was_prepared_in_a_process_that_is_gone_is_prepared_again() -> None:
    changes = Changes()
    gone, there = (cast(FakeSandbox, object()) for _ in range(2))
    logged: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    changes.add(Prepared(Change("remove", "a"), None, gone, cast(FileTransfer, object()), logged))
    assert changes.next(there) is None
    with pytest.raises(FellAsleep):
        await logged


async def test_many_who_read_from_one_machine_hold_up_no_other(house: House) -> None:
    house.ledger.create("n", idle_seconds=3600)
    await write(house, "a", b"1")
    enough = asyncio.Event()

    async def read_for_long() -> None:
        async with house.worker.files.reading("m", Read("a")):
            await enough.wait()

    reading = [asyncio.create_task(read_for_long()) for _ in range(READS_LIMIT + 1)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5), house.worker.files.reading("n", Look("/home/user")) as transfer:
        assert (await transfer.ended())["kind"] == "folder"
    enough.set()
    await asyncio.gather(*reading)


async def test_many_who_write_into_one_machine_hold_up_no_other(house: House) -> None:
    house.ledger.create("n", idle_seconds=3600)
    await house.run("1", "n")
    other = next(each for each in house.host.sandboxes.values() if each.machine == "n")
    house.host.may_prepare.clear()
    writing = [asyncio.create_task(write(house, str(number), b"1")) for number in range(CHANGES_LIMIT + 1)]
    await asyncio.sleep(0.01)
    writing.append(asyncio.create_task(write(house, "a", b"1", "n")))
    await until(lambda: other._transfers)
    house.host.may_prepare.set()
    await asyncio.gather(*writing)
