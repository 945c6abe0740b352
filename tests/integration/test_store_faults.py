"""A worker, its real snapshotter process, and a store that fails: what is promised holds whatever the store does."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from tests.support.faulty_snapshotter import FaultySnapshotter
from tests.support.house import House, until

from torpor_snapshotter.faulty_store import Fault
from torpor_snapshotter.key import pack_key
from torpor_worker.errors import CannotWake, SaveRefused

pytestmark = pytest.mark.integration

FAILING = [Fault.FULL, Fault.REFUSING, Fault.CUT, Fault.WRONG_WRITE, Fault.WRONG_READ, Fault.MISSING]


class Faulty(House):
    """A house whose snapshotter is a process with a store on the disk."""

    def __init__(self, folder: Path, snapshotter: FaultySnapshotter) -> None:
        super().__init__(folder)
        self.folder = folder
        self.faulty = self.snapshotter = snapshotter

    async def asleep_without_images(self) -> None:
        """The machine is asleep, and the local disk has nothing of it."""
        assert await self.worker.sleep("m")
        self.forget_local_images()
        await self.restart()

    def object_of_the_head(self) -> Path:
        head = self.machine().head
        assert head is not None
        return self.folder / "store" / pack_key(head.manifest_key)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Faulty]:
    async with FaultySnapshotter(tmp_path) as snapshotter:
        await snapshotter.claim("owner", has_objects=False)
        house = Faulty(tmp_path, snapshotter)
        house.ledger.create("m", idle_seconds=3600)
        await house.start()
        yield house
        await house.close()


@pytest.mark.parametrize("fault", FAILING)
async def test_a_store_that_fails_or_lies_costs_a_save_and_never_the_state(house: Faulty, fault: Fault) -> None:
    await house.run("a = 3")
    house.faulty.have(fault)
    with pytest.raises(SaveRefused, match="could not be saved"):
        await house.worker.sleep("m")
    assert house.machine().head is None
    assert house.worker.phase("m") == "awake"
    assert "save_failed" in house.machine().notices
    assert await house.value("a + 5") == "8"
    house.faulty.have(None)
    await house.asleep_without_images()
    assert await house.value("a + 6") == "9"
    assert house.machine().notices == {}
    assert house.machine().replayed == []


@pytest.mark.parametrize("fault", [Fault.REFUSING, Fault.CUT, Fault.MISSING])
async def test_while_the_store_does_not_answer_or_is_not_there_nothing_is_given_up(house: Faulty, fault: Fault) -> None:
    await house.run("a = 3")
    await house.asleep_without_images()
    house.faulty.have(fault)
    with pytest.raises(CannotWake, match="could not be fetched"):
        await house.worker.wake("m")
    house.faulty.have(None)
    assert await house.value("a + 5") == "8"
    assert (house.machine().line, house.machine().replayed) == (0, [])


@pytest.mark.parametrize("damage", ["a bit of a pack", "half a pack", "no pack", "no manifest"])
async def test_a_damaged_or_missing_object_gives_way_to_the_save_before_and_the_log(house: Faulty, damage: str) -> None:
    await house.run("a = 3")
    await house.worker.sync("m")
    await house.run("b = a + 5")
    assert await house.worker.sleep("m")
    pack = house.object_of_the_head()
    whole = pack.read_bytes()
    match damage:
        case "a bit of a pack":
            pack.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        case "half a pack":
            pack.write_bytes(whole[: len(whole) // 2])
        case "no pack":
            pack.unlink()
        case _:
            pack.with_suffix("").unlink()
    house.forget_local_images()
    await house.restart()
    assert await house.value("a, b") == "(3, 8)"
    assert house.machine().replayed == [1]
    assert "Generation 1 could not be used" in house.machine().notices["set_aside"][0]


async def test_a_store_that_lies_about_everything_costs_no_answer(house: Faulty) -> None:
    await house.run("a = 3")
    await house.run("a + 5")
    await house.asleep_without_images()
    house.faulty.have(Fault.WRONG_READ)
    assert await house.value("a + 6") == "9"
    assert house.machine().replayed == [0, 1]
    assert house.entry(1).result is not None


@pytest.fixture
def small_disk(house: Faulty) -> Iterator[Path]:
    """The store is on a disk of 1 MiB."""
    disk = house.folder / "store"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk of its own")
async def test_a_disk_that_fills_costs_a_save_and_never_the_state(house: Faulty, small_disk: Path) -> None:
    await house.run("big = __import__('os').urandom(3 << 20); a = 3")
    with pytest.raises(SaveRefused, match="is full"):
        await house.worker.sleep("m")
    assert files_in(small_disk) == []
    assert await house.value("a + 5") == "8"
    room = ["mount", "-o", "remount,size=8m", str(small_disk)]
    await asyncio.to_thread(subprocess.run, room, check=True)
    await house.asleep_without_images()
    assert await house.value("a + 6, len(big)") == f"(9, {3 << 20})"
    assert house.machine().replayed == []


async def test_while_a_key_is_missing_nothing_is_given_up(house: Faulty) -> None:
    await house.run("a = 3")
    await house.asleep_without_images()
    (house.folder / "keys").rename(house.folder / "elsewhere")
    with pytest.raises(CannotWake, match="key of machine m"):
        await house.worker.wake("m")
    (house.folder / "elsewhere").rename(house.folder / "keys")
    assert await house.value("a + 5") == "8"
    assert house.machine().replayed == []


async def test_a_save_that_a_slow_store_is_busy_with_keeps_nobody_waiting(house: Faulty) -> None:
    house.set(quiet_save_seconds=0.01)
    await house.restart()
    house.faulty.have(Fault.SLOW)
    await house.run("a = 3")
    await until(lambda: any((house.folder / "store" / ".incoming").glob("*")))
    assert await house.value("a + 5") == "8"
    assert house.machine().head is None
