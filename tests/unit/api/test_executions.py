"""Instructions in the background: started, waited for and ended from anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api

KEY = "alice.0123456789abcdef"


@pytest.fixture
async def client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


async def test_what_was_started_here_is_waited_for_elsewhere(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    started = await machine.start("count(5, 0.02)")
    assert repr(started) == f"AsyncExecution({machine.name!r}, seq=0)"
    elsewhere = client.machine(machine.name).execution(started.seq)
    result = await elsewhere.wait()
    assert result.stdout == "0\n1\n2\n3\n4\n"
    assert await started.done()
    assert not await started.cancel()


async def test_a_busy_machine_says_so_queues_or_is_interrupted(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    hanging = await machine.start("hang()", timeout_seconds=600)
    with pytest.raises(torpor.MachineBusy, match="running another"):
        await machine.start("1")
    queued = await machine.start("2", queue=True)
    assert not await hanging.done()
    with pytest.raises(TimeoutError):
        await hanging.wait(timeout=0.05)
    assert await hanging.cancel()
    assert (await hanging.wait()).error is not None
    assert (await queued.wait()).value == "2"
    again = await machine.start("hang()", timeout_seconds=600)
    assert (await (await machine.start("3", interrupt=True)).wait()).value == "3"
    assert (await again.wait()).error is not None


async def test_the_same_word_starts_it_once(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    first = await machine.start("a = 3", idempotency_key="once")
    assert (await machine.start("a = 3", idempotency_key="once")).seq == first.seq == 0


async def test_the_synchronous_twin(live: Api) -> None:
    def work() -> None:
        with torpor.Client(url=str(live.client.base_url), api_key=KEY) as client:
            machine = client.machine("background")
            started = machine.start("count(3, 0.02)")
            assert machine.execution(started.seq).wait(timeout=60).stdout == "0\n1\n2\n"
            hanging = machine.start("hang()", timeout_seconds=600)
            with pytest.raises(TimeoutError, match="not finished"):
                hanging.wait(timeout=0.05)
            assert [event.type for event in started.stream()][-1] == "result"
            assert hanging.cancel()
            assert hanging.wait().error is not None

    await asyncio.to_thread(work)
