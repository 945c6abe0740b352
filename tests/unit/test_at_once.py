"""Calls at the same time: as many as there is room for, and none left over after a failure."""

import asyncio
from functools import partial

import pytest

from torpor_snapshotter.at_once import all_of


async def test_answers_come_in_order_and_no_more_than_the_limit_are_under_way() -> None:
    under_way: list[int] = []
    most = 0

    async def call(number: int) -> int:
        nonlocal most
        under_way.append(number)
        most = max(most, len(under_way))
        await asyncio.sleep(0.001 * (number % 3))
        under_way.remove(number)
        return number

    assert await all_of([partial(call, number) for number in range(20)], 4) == list(range(20))
    assert most == 4


async def test_after_a_failure_nothing_is_under_way_and_nothing_more_begins() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def call(number: int) -> None:
        begun.append(number)
        try:
            await asyncio.sleep(0 if number == 2 else 60)
            raise LookupError
        finally:
            ended.append(number)

    with pytest.raises(LookupError):
        await all_of([partial(call, number) for number in range(20)], 4)
    assert sorted(begun) == sorted(ended)
    assert len(begun) <= 5
