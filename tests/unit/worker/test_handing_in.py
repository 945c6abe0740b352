"""Packages that are asked for inside of machines are handed in once, and by every recovery as they were."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.support.house import House, until

from torpor_worker.ledger import EntryKind
from torpor_worker.packages.asked import PackageRefused, Rules, Wanted, Wheel
from torpor_worker.packages.fetching import OFF, Packages


class Shop(Packages):
    """Has every package, in a newer version each time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Rules(), folder)
        self.sold: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, wanted: Wanted) -> list[Wheel]:
        """Those that are asked for."""
        await self.open.wait()
        [name] = wanted.requirements
        if name == "forbidden":
            raise PackageRefused("It is forbidden.")
        self.sold.append(name)
        return [Wheel(name, str(len(self.sold)), f"{name}-{len(self.sold)}.whl", "0" * 64, 1)]

    async def archive(self, wheels: Sequence[Wheel]) -> AsyncIterator[bytes]:
        """Their names and versions."""
        for wheel in wheels:
            yield f"{wheel.name} {wheel.version}".encode()


@pytest.fixture
async def shop(house: House, tmp_path: Path) -> Shop:
    house.packages = shop = Shop(tmp_path / "packages")
    await house.restart()
    return shop


async def test_what_is_asked_for_is_handed_in_and_in_the_log(house: House, shop: Shop) -> None:
    assert await house.value("install('tidy')") == "'tidy 1'"
    assert await house.value("install('tidy')") == "'tidy 2'"
    changes = [entry for entry in house.machine().log if entry.kind is EntryKind.FILE]
    assert [entry.code for entry in changes] == [
        f'{{"work": "write", "path": ".cache/torpor/{seq}-0000000000000000-0.tar", "mode": 420, "recursive": false}}'
        for seq in (0, 1)
    ]


async def test_a_recovery_hands_in_what_was_handed_in_first(house: House, shop: Shop) -> None:
    assert await house.value("install('tidy')") == "'tidy 1'"
    await house.run("seen = 5")
    shop.open.clear()  # the index is away
    await house.crash()
    await house.start()
    assert await house.value("seen") == "5"
    assert house.machine().notices["replayed"][1] == [0, 1]
    assert "differed" not in house.machine().notices
    assert shop.sold == ["tidy"]


async def test_a_careful_recovery_does_too(house: House, shop: Shop) -> None:
    assert await house.value("install('tidy')") == "'tidy 1'"
    for _ in range(2):
        await house.run("die()")
    assert await house.value("5") == "5"
    assert "differed" not in house.machine().notices
    assert shop.sold == ["tidy"]


async def test_what_was_refused_is_refused_again_by_a_recovery(house: House, shop: Shop) -> None:
    assert await house.value("install('forbidden')") == "'It is forbidden.'"
    await house.crash()
    await house.start()
    await house.run("1")
    assert house.machine().notices["differed"][1] == [0]
    assert shop.sold == []


async def test_an_ask_that_was_cut_off_is_answered_by_the_next_worker(house: House, shop: Shop) -> None:
    shop.open.clear()
    seq = house.send("install('tidy')")
    await until(lambda: house.host.frames)
    await house.crash()
    shop.open.set()
    await house.start()
    assert (await house.result(seq)).value == "'tidy 1'"


async def test_an_ask_goes_on_through_a_save_in_the_middle(house: House, shop: Shop) -> None:
    shop.open.clear()
    seq = house.send("install('tidy')")
    await until(lambda: house.host.frames)
    restarting = asyncio.create_task(house.restart())
    await restarting
    shop.open.set()
    assert (await house.result(seq)).value == "'tidy 1'"


async def test_a_sandbox_that_outlives_its_worker_is_answered_by_the_next(house: House, shop: Shop) -> None:
    shop.open.clear()
    seq = house.send("install('tidy')")
    await until(lambda: house.host.frames)
    await house.die()
    shop.open.set()
    await house.start()
    assert (await house.result(seq)).value == "'tidy 1'"


async def test_without_packages_the_refusal_says_what_the_operator_sets(house: House) -> None:
    assert await house.value("install('tidy')") == repr(OFF)
