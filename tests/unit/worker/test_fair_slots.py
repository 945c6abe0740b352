"""Accounts take turns where there are few slots."""

import asyncio

from torpor_worker.packages.fair_slots import FairSlots


class Counter:
    """Who has a slot, in the order of getting it, until it is told to let go."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.got: list[str] = []
        self.done: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._be_served(name))
        await asyncio.sleep(0.01)

    async def go(self, *names: str) -> None:
        for name in names:
            self.done[name].set()
        await asyncio.sleep(0.01)

    async def _be_served(self, name: str) -> None:
        self.done[name] = asyncio.Event()
        async with self.slots.one(name[0]):
            self.got.append(name)
            await self.done[name].wait()


async def test_who_comes_alone_has_more_than_one_and_never_all() -> None:
    counter = Counter(FairSlots(4, 2))
    await counter.come("a1", "a2", "a3", "a4", "a5")
    assert counter.got == ["a1", "a2"]
    await counter.come("b1")
    assert counter.got == ["a1", "a2", "b1"]  # though a3 has waited for longer
    await counter.go("a1")
    assert counter.got[3:] == ["a3"]
    await counter.go("a2", "a3", "a4", "a5", "b1")
    await counter.come("a6", "b2", "b3", "c1")
    assert counter.got[4:] == ["a4", "a5", "a6", "b2", "b3", "c1"]


async def test_who_has_fewest_is_next() -> None:
    counter = Counter(FairSlots(2, 2))
    await counter.come("a1", "a2", "a3", "b1")
    await counter.go("a1")
    assert counter.got == ["a1", "a2", "b1"]


async def test_who_gives_up_leaves_nothing_behind() -> None:
    counter = Counter(FairSlots(1, 1))
    await counter.come("a1", "b1", "c1")
    counter.tasks["b1"].cancel()
    await counter.go("a1")
    assert counter.got == ["a1", "c1"]
    counter.tasks["c1"].cancel()
    await counter.come("d1")
    assert counter.got == ["a1", "c1", "d1"]
    await counter.go("d1")
    assert not counter.slots._taken
    assert not counter.slots._waiting


async def test_who_is_cancelled_when_his_turn_has_come_gives_it_back() -> None:
    counter = Counter(FairSlots(1, 1))
    await counter.come("a1", "b1", "c1")
    counter.done["a1"].set()
    while not counter.slots._taken["b"]:  # noqa: ASYNC110 (it has its turn, and was not resumed yet)
        await asyncio.sleep(0)
    counter.tasks["b1"].cancel()
    await counter.come()
    assert "c1" in counter.got
