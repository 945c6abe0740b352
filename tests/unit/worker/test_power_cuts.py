"""Promise 3: whenever the power is cut, nothing that was acknowledged is missing afterwards."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.support.house import House, until
from tests.support.power import Power

from torpor_worker.worker import Worker


async def start(house: House, power: Power) -> None:
    house.workers.append(
        Worker(power.plug(house.ledger), house.host, power.plug(house.snapshotter), house.images, house.config)
    )
    await house.worker.start()


async def a_day(house: House, power: Power) -> None:
    """A bit of everything that writes to the ledger or the store."""
    await start(house, power)
    await house.run("n = 0")
    await house.run("n += 1")
    await house.worker.sync("m")
    await house.run("n += 1; print(n)")
    await house.run("die()")
    await house.run("n += 1")
    await house.worker.sleep("m")
    await house.run("n += 1")
    await house.run("hang()", timeout_seconds=0.005)
    await house.run("n += 1")
    counting = house.send("count(8, 0.001)")
    await until(lambda: house.output(counting))
    house.send("n += 1")
    await house.worker.drain(30)
    await start(house, power)
    await house.result(counting)
    await house.run("n += 1")


async def check(house: House, answered: Mapping[int, object]) -> None:
    for entry in list(house.machine().log):
        if entry.seq is not None:
            await house.result(entry.seq)
    for seq, result in answered.items():
        assert house.entry(seq).result == result
    counted = sum("n += 1" in entry.code for entry in house.machine().log)
    assert await house.value("n") == str(counted)
    for entry in house.machine().log:
        if entry.code.startswith("count") and entry.seq is not None:
            assert house.output(entry.seq) == "".join(f"{number}\n" for number in range(8))
            assert entry.result is not None
            assert entry.result.value == "8"
    assert await house.worker.sleep("m")
    assert await house.value("n") == str(counted)


async def how_many_calls(folder: Path) -> int:
    house = House(folder)
    house.ledger.create("m", idle_seconds=3600)
    power = Power()
    await a_day(house, power)
    answered = {entry.seq: entry.result for entry in house.machine().log if entry.seq is not None}
    await check(house, answered)
    await house.close()
    return power.calls


async def test_nothing_acknowledged_is_missing_whenever_the_power_is_cut(tmp_path: Path) -> None:
    calls = await how_many_calls(tmp_path / "whole")
    assert calls > 40
    for cut_at in range(1, calls + 1):
        house = House(tmp_path / str(cut_at))
        house.ledger.create("m", idle_seconds=3600)
        power = Power(cut_at)
        day = asyncio.create_task(a_day(house, power))
        cut = asyncio.create_task(power.cut.wait())
        await asyncio.wait([day, cut], return_when=asyncio.FIRST_COMPLETED)
        answered = {entry.seq: entry.result for entry in house.machine().log if entry.seq is not None and entry.result}
        day.cancel()
        cut.cancel()
        await asyncio.gather(day, cut, return_exceptions=True)
        if house.workers:
            await house.crash()
        await house.start()
        if not answered and not any(entry.code == "n = 0" for entry in house.machine().log):
            await house.run("n = 0")
        try:
            await check(house, answered)
        except BaseException as error:
            error.add_note(f"cut at call {cut_at} of {calls}")
            raise
        await house.close()
