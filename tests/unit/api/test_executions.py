"""The SDK's handles of code in the background against the real application, both twins by the same steps."""

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


async def test_code_in_the_background_is_polled_ended_and_waited_for(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    execution = await machine.start("print('on', flush=True); hang()")
    assert (execution.machine_name, execution.seq) == (machine.name, 0)
    assert repr(execution) == f"AsyncExecution({machine.name!r}, seq=0)"
    assert not await execution.done()
    with pytest.raises(torpor.NotFinished, match="It is not finished after"):
        await execution.wait(timeout=0.05)
    with pytest.raises(TimeoutError):
        await execution.wait(timeout=0.05)
    stream = execution.stream()
    assert (await anext(aiter(stream))).type == "stdout"
    assert await execution.cancel()
    result = await execution.wait()
    assert (result.error and result.error.name, result.stdout) == ("KeyboardInterrupt", "on\n")
    assert await stream.result() == result
    assert await execution.done()
    assert not await execution.cancel()


async def test_only_the_instruction_that_is_named_is_ended(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    first = await machine.start("1")
    await first.wait()
    second = await machine.start("hang()")
    assert not await first.cancel()
    assert not await second.done()
    assert await second.cancel()


async def test_an_execution_is_found_again_by_another_process(live: Api, client: torpor.AsyncClient) -> None:
    execution = await (await client.new_machine(alias="mine")).start("'hello'")
    async with torpor.AsyncClient(url=client.url, api_key=KEY) as other:
        for name in (execution.machine_name, "mine"):
            assert (await other.machine(name).execution(execution.seq).wait()).value == "'hello'"
        with pytest.raises(torpor.InstructionNotFound):
            await other.machine("mine").execution(7).done()


async def test_a_busy_machine_refuses_queues_or_is_interrupted(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    first = await machine.start("hang()")
    with pytest.raises(torpor.MachineBusy, match="running another"):
        await machine.start("2")
    queued = await machine.start("2", queue=True)
    assert not await queued.done()
    unwanted = await machine.start("hang()", queue=True)
    assert await unwanted.cancel(), "it has not begun, and ends as soon as it does"
    await first.cancel()
    assert (await queued.wait()).value == "2"
    assert "KeyboardInterrupt" in str((await unwanted.wait()).error)
    third = await machine.start("hang()")
    fourth = await machine.start("4", interrupt=True)
    assert (await fourth.wait()).value == "4"
    assert not (await third.wait()).ok


async def test_a_key_starts_code_once(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    executions = [await machine.start("times()", queue=True, idempotency_key="once") for _ in range(3)]
    assert {execution.seq for execution in executions} == {0}
    assert [(await execution.wait()).value for execution in executions] == ["1"] * 3
    with pytest.raises(torpor.IdempotencyKeyReused):
        await machine.start("other", idempotency_key="once")


async def test_threads_have_the_same_handles(live: Api) -> None:
    def use() -> None:
        with torpor.Client(url=str(live.client.base_url), api_key=KEY) as client:
            machine = client.new_machine()
            execution = machine.start("print('on', flush=True); hang()")
            assert not execution.done()
            with pytest.raises(torpor.NotFinished):
                execution.wait(timeout=0.05)
            with execution.stream() as stream:
                assert next(iter(stream)).type == "stdout"
            again = client.machine(machine.name).execution(execution.seq)
            assert again.cancel()
            assert again.wait(timeout=60) == execution.wait()
            assert not again.cancel()
            assert execution.wait().stdout == "on\n"
            assert execution.done()
            with pytest.raises(torpor.MachineBusy):
                [machine.start("hang()") for _ in range(2)]

    await asyncio.to_thread(use)


async def test_an_instruction_is_shown_without_its_output(live: Api) -> None:
    machine = await live.new_machine()
    seq = await live.execute(machine, "print('x')")
    await live.client.get(f"/v1/machine/{machine}/exec/{seq}/result")
    path = f"/v1/machine/{machine}/exec/{seq}"
    assert "events" in (await live.client.get(path)).json()
    shown = (await live.client.get(path, params={"events": "false"})).json()
    assert ("events" in shown, shown["state"]) == (False, "finished")
    assert (await live.client.get(path, params={"events": "perhaps"})).status_code == 422


async def test_what_was_started_here_is_waited_for_elsewhere(client: torpor.AsyncClient) -> None:
    machine = await client.new_machine()
    started = await machine.start("count(5, 0.02)")
    elsewhere = client.machine(machine.name).execution(started.seq)
    result = await elsewhere.wait()
    assert result.stdout == "0\n1\n2\n3\n4\n"
    assert await started.done()
    assert not await started.cancel()
