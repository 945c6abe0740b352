"""`sync`, and when a save is made or left out: with a store that is slow, as a store may be."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.house import House, until

from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.folder_store import FolderStore
from torpor_worker.memory_snapshotter import MemorySnapshotter
from torpor_worker.snapshots import Parent, Stored


class StoreSnapshotter(MemorySnapshotter):
    """Puts each image into an object store too, and says that it is stored when that says so."""

    def __init__(self, store: FaultyStore) -> None:
        super().__init__()
        self._store = store

    async def store(self, image: Path, key: str, fields: dict[str, Any], parent: Parent | None = None) -> Stored:
        """See `Snapshotter`."""
        stored = await super().store(image, key, fields, parent)

        async def body() -> AsyncIterator[bytes]:
            for data in self.objects[key].values():
                yield data

        await self._store.put_new(key, body())
        return stored


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(FolderStore(tmp_path / "store"))


@pytest.fixture
async def slow(house: House, store: FaultyStore) -> House:
    """A host whose store waits in the middle of each write until it is told to go on."""
    await house.crash()
    house.snapshotter = StoreSnapshotter(store)
    await house.start()
    store.fault = Fault.SLOW
    return house


async def stored(store: FaultyStore) -> list[str]:
    return sorted([key async for key in store.list("m/")])


async def test_sync_returns_when_all_that_has_finished_is_in_the_store_and_not_before(
    slow: House, store: FaultyStore
) -> None:
    await slow.run("a = 3")
    first = asyncio.create_task(slow.worker.sync("m"))
    await store.waiting.wait()
    await slow.run("b = 4")  # not in the save that is on its way
    second = asyncio.create_task(slow.worker.sync("m"))
    await until(lambda: slow.machine().next_generation == 2)
    assert not first.done()
    assert not second.done()
    assert await stored(store) == []
    store.go_on.set()
    await second
    assert first.done()
    assert await stored(store) == ["m/0", "m/1"]
    head = slow.machine().head
    assert head is not None
    assert head.position == slow.entry(1).position


async def test_sync_waits_for_a_save_that_was_on_its_way_already(slow: House, store: FaultyStore) -> None:
    slow.set(quiet_save_seconds=0.001)
    await slow.restart()
    await slow.run("a = 3")
    await store.waiting.wait()
    syncing = asyncio.create_task(slow.worker.sync("m"))
    await slow.run("1")
    assert not syncing.done()
    store.go_on.set()
    await syncing
    assert await stored(store)


async def test_sync_fails_when_the_store_does(slow: House, store: FaultyStore) -> None:
    await slow.run("a = 3")
    store.fault = Fault.REFUSING
    with pytest.raises(Exception, match="could not be saved"):
        await slow.worker.sync("m")
    store.fault = None
    await slow.worker.sync("m")
    assert await stored(store)


async def test_sync_of_a_machine_that_falls_asleep_returns_when_it_is_asleep(slow: House, store: FaultyStore) -> None:
    await slow.run("a = 3")
    sleeping = asyncio.create_task(slow.worker.sleep("m"))
    await store.waiting.wait()
    syncing = asyncio.create_task(slow.worker.sync("m"))
    await asyncio.sleep(0)
    assert not syncing.done()
    store.go_on.set()
    await syncing
    assert await sleeping
    assert len(await stored(store)) == 1


async def test_a_quiet_machine_in_which_nothing_ran_is_not_saved_again(house: House) -> None:
    house.set(quiet_save_seconds=0.001, save_interval_seconds=0.001, look_seconds=0.001)
    await house.restart()
    await house.run("a = 3")
    # Where even this takes a millisecond, it is saved in the middle of it, too.
    await until(lambda: (head := house.machine().head) is not None and head.quiescent)
    saves = house.machine().next_generation
    house.ledger.create("n", idle_seconds=3600)
    await house.run("background()", "n")
    await until(lambda: house.machine("n").next_generation > 1)  # while that one was saved again
    assert house.machine().next_generation == saves


async def test_background_work_of_a_machine_that_woke_is_saved_though_nothing_ran_since(house: House) -> None:
    await house.run("background()")
    await house.worker.sleep("m")
    saves = house.machine().next_generation
    house.set(save_interval_seconds=0.01)
    await house.restart()
    await house.worker.wake("m")
    await until(lambda: house.machine().next_generation > saves)
