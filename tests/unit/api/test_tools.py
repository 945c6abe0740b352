"""The tool `python` against the real application."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

import pytest

import torpor
from torpor.tools import PythonTool, machine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api

KEY = "alice.0123456789abcdef"


@pytest.fixture
async def client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


async def test_a_conversation_has_one_machine_and_each_call_runs_once(client: torpor.AsyncClient) -> None:
    tool = PythonTool(client, "thread-42")
    await tool.acall({"code": "a = 0"})
    first = await tool.acall('{"code": "a = a + 1\\na", "timeout_seconds": null}', call_id="call_1")
    again = await PythonTool(client, "thread-42").acall({"code": "a = a + 1\na"}, call_id="call_1")
    assert (first.text, again.text, first.is_error) == ("1", "1", False)
    assert (await PythonTool(client, "thread-43").acall({"code": "a"})).is_error
    assert [machine.info.alias for machine in await client.machines() if machine.info] == ["thread-43", "thread-42"]


async def test_what_is_wrong_is_told_to_the_model(client: torpor.AsyncClient) -> None:
    tool = PythonTool(client, "thread-42")
    failed = await tool.acall({"code": "1 / 0"})
    assert failed.is_error
    assert failed.text.endswith("ZeroDivisionError: division by zero")
    assert '{"code": "..."}' in (await tool.acall("no json")).text
    assert '{"code": "..."}' in (await tool.acall({"cod": "1"})).text
    assert "timeout_seconds" in (await tool.acall({"code": "1", "timeout_seconds": "soon"})).text
    assert "at most" in (await tool.acall({"code": "1", "timeout_seconds": 10**6})).text
    with pytest.raises(torpor.Unauthorized):
        async with torpor.AsyncClient(url=client.url, api_key="alice.wrong") as stranger:
            await PythonTool(stranger, "thread-42").acall({"code": "1"})


async def test_a_cancelled_call_ends_what_it_runs_and_nothing_else(client: torpor.AsyncClient) -> None:
    tool = PythonTool(client, "thread-42")
    machine = machine_of(client, "thread-42")
    await machine.run("a = 3")
    running = asyncio.create_task(tool.acall({"code": "hang()", "timeout_seconds": 600}))
    while not (await machine.detail()).has_pending_instruction:  # noqa: ASYNC110 - it is another process's, in truth
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await tool.acall({"code": "a + 5"})).text == "8"
    assert (await machine.instruction(1)).ended_by == "interrupt"


async def test_a_synchronous_machine_serves_both_kinds_of_programs(live: Api, client: torpor.AsyncClient) -> None:
    def work() -> str:
        with torpor.Client(url=str(live.client.base_url), api_key=KEY) as sync:
            tool = PythonTool(sync, "thread-42")
            python = sync.machine("thread-42").tool()
            assert python("b = 4") == "(no output)"
            assert inspect.signature(python).parameters.keys() == {"code", "timeout_seconds"}
            assert "keeps everything" in (python.__doc__ or "")
            return asyncio.run(tool.acall({"code": "b"})).text + tool.call({"code": "b + 1"}).text

    assert await asyncio.to_thread(work) == "45"
    assert await client.machine("thread-42").tool()("b + 2") == "6"
    with pytest.raises(TypeError, match="acall"):
        PythonTool(client, "thread-42").call({"code": "1"})
    with pytest.raises(ValueError, match="conversation"):
        PythonTool(client)
