"""Packages that are asked for inside of machines are handed in once, and by every recovery as they were."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from tests.support.house import House, until

from torpor_worker.answers import KEPT
from torpor_worker.bodies import Body
from torpor_worker.fake_files import package_ask
from torpor_worker.files import Change
from torpor_worker.handing_in import AT_ONCE, TOO_MANY, HandingIn
from torpor_worker.ledger import EntryKind, Hold
from torpor_worker.memory_ledger import MemoryLedger
from torpor_worker.packages.asked import PackageRefused, Rules, Wanted, Wheel
from torpor_worker.packages.fetching import OFF, Packages
from torpor_worker.sandbox import Sandbox


class Shop(Packages):
    """Has every package, in a newer version each time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Rules(), folder)
        self.sold: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, account: str, wanted: Wanted) -> list[Wheel]:
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


class Room:
    """Files, and the sandbox that waits for them."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.answers: list[tuple[int, str | None]] = []

    @asynccontextmanager
    async def stored(self, account: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[Body]:
        """See `Files`."""
        yield Body("key", sum([len(piece) async for piece in pieces]))

    async def change(self, machine: str, change: Change, body: Body | None) -> None:
        """See `Files`."""
        self.written.append(change.path)

    async def answer_packages(self, number: int, *, refused: str | None) -> None:
        """See `Sandbox`."""
        self.answers.append((number, refused))


class Deaf(Room):
    """A sandbox that reads nothing."""

    async def answer_packages(self, number: int, *, refused: str | None) -> None:
        """See `Sandbox`."""
        await asyncio.Event().wait()


async def _hold(ledger: MemoryLedger) -> Hold:
    hold = await ledger.acquire("m")
    assert hold is not None
    return hold


@pytest.fixture
async def ledger() -> MemoryLedger:
    ledger = MemoryLedger()
    ledger.create("m")
    await ledger.open_session("w")
    return ledger


async def test_an_ask_in_the_queue_is_answered_under_the_hold_of_now(ledger: MemoryLedger, tmp_path: Path) -> None:
    shop, room = Shop(tmp_path), Room()
    sandbox = cast(Sandbox, room)
    handing_in = HandingIn(ledger, room, shop)
    shop.open.clear()
    old = await _hold(ledger)
    (first, _), (second, path) = package_ask(0, "first"), package_ask(1, "second")
    handing_in.wanted(old, sandbox, first)
    handing_in.wanted(old, sandbox, second)  # waits for the first, which takes so long that the machine falls asleep
    await asyncio.sleep(0.01)
    new = await _hold(ledger)
    handing_in.wanted(new, sandbox, second)
    shop.open.set()
    await until(lambda: len(room.answers) == 2)
    assert f"/home/user/{room.written[-1]}" == path


async def test_an_ask_beyond_those_that_are_waited_for_is_refused(ledger: MemoryLedger, tmp_path: Path) -> None:
    shop, room = Shop(tmp_path), Room()
    handing_in = HandingIn(ledger, room, shop)
    shop.open.clear()
    hold = await _hold(ledger)
    for seq in range(AT_ONCE + 1):
        handing_in.wanted(hold, cast(Sandbox, room), package_ask(seq, "tidy")[0])
    await until(lambda: room.answers)
    assert room.answers == [(1, TOO_MANY)]
    await handing_in.close()


async def test_a_guest_that_takes_no_answers_fills_no_memory(ledger: MemoryLedger, tmp_path: Path) -> None:
    deaf = Deaf()
    handing_in = HandingIn(ledger, deaf, None)
    hold = await _hold(ledger)
    before = len(asyncio.all_tasks())
    for seq in range(1000):
        handing_in.wanted(hold, cast(Sandbox, deaf), package_ask(seq, "tidy")[0])
        await asyncio.sleep(0)
    await until(lambda: not handing_in._machines)
    assert len(asyncio.all_tasks()) == before + 1
    assert sum(map(len, handing_in._answers._waiting.values())) == KEPT
    await handing_in.close()


async def test_nothing_is_fetched_once_a_worker_stops(ledger: MemoryLedger, tmp_path: Path) -> None:
    shop, room = Shop(tmp_path), Room()
    handing_in = HandingIn(ledger, room, shop)
    await handing_in.close()
    handing_in.wanted(await _hold(ledger), cast(Sandbox, room), package_ask(0, "tidy")[0])
    await asyncio.sleep(0.01)
    assert shop.sold == []
