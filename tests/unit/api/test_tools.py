"""The tool `python` against the real application."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
from typing import TYPE_CHECKING

import anyio
import httpx2
import pytest

import torpor
from torpor.tools import PARAMETERS, PythonTool, machine_of
from torpor.tools._shell import Shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import Api

KEY = "alice.0123456789abcdef"


@pytest.fixture
async def client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


async def accepted(machine: torpor.AsyncMachine, count: int) -> None:
    """Wait until a machine has so many instructions."""
    while len([row async for row in machine.history()]) < count:  # noqa: ASYNC110 - other tasks send them
        await asyncio.sleep(0.01)


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


async def test_what_is_too_long_for_an_answer_is_read_on_without_running_anything(client: torpor.AsyncClient) -> None:
    tool = PythonTool(client, "thread-42", limit_tokens=100)
    pieces = [(await tool.acall({"code": "list(range(500))"})).text]
    whole = str(list(range(500)))
    read = pieces[0].partition("\n[")[0]
    while "`" in pieces[-1]:
        pieces.append((await tool.acall({"code": pieces[-1].split("`")[1]})).text)
        read += pieces[-1].partition("\n[")[0]
    assert read == whole
    assert len([row async for row in machine_of(client, "thread-42").history()]) == 1
    assert (await tool.acall({"code": "%output 7"})).is_error


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


async def begun(machine: torpor.AsyncMachine, count: int) -> None:
    """Wait until a machine runs so many commands."""
    while len([info for info in await machine.commands.list() if info.state == "running"]) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Withheld(httpx2.AsyncHTTPTransport):
    """A network on which the first answer to a run never arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if request.url.path.endswith("/run") and response.is_success and not self.answered.is_set():
            self.answered.set()
            try:
                await asyncio.Event().wait()
            finally:
                await response.aclose()
        return response


async def test_a_call_that_is_cancelled_before_its_answer_begins_is_ended_too(live: Api) -> None:
    network = Withheld()
    url = str(live.client.base_url)
    async with torpor.AsyncClient(url=url, api_key=KEY, transport=network) as client:
        running = asyncio.create_task(PythonTool(client, "thread-42").acall({"code": "hang()"}))
        await network.answered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        machine = machine_of(client, "thread-42")
        assert (await machine.run("3", queue=True)).value == "3"
        assert [row.ended_by async for row in machine.history()] == [None, "interrupt"]


async def test_a_call_that_waits_for_another_programs_code_is_ended_when_it_is_cancelled(
    client: torpor.AsyncClient,
) -> None:
    """In a scope of anyio's, as MCP has it: whatever is awaited there is cancelled, again and again."""
    machine = machine_of(client, "thread-42")
    other = asyncio.create_task(machine.run("hang()", timeout_seconds=600))
    await accepted(machine, 1)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(PythonTool(client, "thread-42").acall, {"code": "hang()", "timeout_seconds": 600})
            await accepted(machine, 2)
            scope.cancel()
    assert await machine.interrupt(0)
    assert not (await other).ok
    assert (await machine.run("3", queue=True)).value == "3"
    assert [row.ended_by async for row in machine.history()] == [None, "interrupt", "interrupt"]


async def test_calls_that_are_sent_at_once_run_in_their_order(client: torpor.AsyncClient) -> None:
    codes = [f"a = {number}; a" for number in range(20)]
    answers = await asyncio.gather(*(PythonTool(client, "thread-42").acall({"code": code}) for code in codes))
    assert [answer.text for answer in answers] == [str(number) for number in range(20)]
    assert [row.code async for row in machine_of(client, "thread-42").history()] == codes[::-1]


async def test_a_cancelled_call_of_a_synchronous_machine_is_ended(live: Api, client: torpor.AsyncClient) -> None:
    machine = machine_of(client, "thread-42")
    await machine.run("a = 3")
    with torpor.Client(url=str(live.client.base_url), api_key=KEY) as sync:
        running = asyncio.create_task(PythonTool(sync, "thread-42").acall({"code": "hang()"}))
        await accepted(machine, 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await machine.run("a", queue=True)).value == "3"
    assert (await machine.instruction(1)).ended_by == "interrupt"


async def test_ctrl_c_ends_the_code_of_the_call(live: Api, client: torpor.AsyncClient) -> None:
    machine = machine_of(client, "thread-42")
    await machine.run("a = 3")
    program = (
        "import signal, torpor, torpor.tools\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have had it ignored
        f"client = torpor.Client(url={str(live.client.base_url)!r}, api_key={KEY!r})\n"
        "torpor.tools.PythonTool(client, 'thread-42').call({'code': 'hang()'})"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
    await accepted(machine, 2)
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert said.strip().endswith(b"KeyboardInterrupt")
    assert (await machine.run("a", queue=True)).value == "3"
    assert (await machine.instruction(1)).ended_by == "interrupt"


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "ctrl-c"])
async def test_a_command_that_is_given_up_is_killed_and_no_other(
    live: Api, client: torpor.AsyncClient, cancelled: bool
) -> None:
    machine = await client.new_machine()
    other = await machine.commands.start("hang")
    url = str(live.client.base_url)
    program = (
        "import signal, torpor\n"
        "from torpor.tools._shell import Shell\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"machine = torpor.Client(url={url!r}, api_key={KEY!r}).machine({machine.name!r}, create=False)\n"
        "Shell(machine, notices=True).execute('hang', 600)"
    )
    with torpor.Client(url=url, api_key=KEY) as sync:
        if cancelled:
            shell = Shell(sync.machine(machine.name, create=False), notices=True)
            running = asyncio.create_task(shell.aexecute("hang", 600))
            await begun(machine, 2)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        else:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE
            )
            await begun(machine, 2)
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.wait_for(process.communicate(), 60)
            assert said.strip().endswith(b"KeyboardInterrupt")
    assert (await machine.commands.get(other.seq + 1).wait()).signal == "SIGKILL"
    assert not await other.done()
    await other.signal("KILL")


async def test_a_synchronous_machine_serves_both_kinds_of_programs(live: Api, client: torpor.AsyncClient) -> None:
    def work() -> str:
        with torpor.Client(url=str(live.client.base_url), api_key=KEY) as sync:
            tool = PythonTool(sync, "thread-42")
            python = sync.machine("thread-42").tool()
            assert python("b = 4") == "(no output)"
            assert inspect.signature(python).parameters.keys() == {"code", "timeout_seconds"}
            assert "keeps everything" in (python.__doc__ or "")
            assert python.__name__ == "python"
            assert set(python.parameters["properties"]) == set(inspect.signature(python).parameters)
            assert python(**{"code": "b = 4", "timeout_seconds": None}) == "(no output)"
            return asyncio.run(tool.acall({"code": "b"})).text + tool.call({"code": "b + 1"}).text

    assert await asyncio.to_thread(work) == "45"
    python = client.machine("thread-42").tool()
    assert await python("b + 2") == "6"
    assert (python.__name__, python.parameters) == ("python", PARAMETERS)
    with pytest.raises(TypeError, match="acall"):
        PythonTool(client, "thread-42").call({"code": "1"})
    with pytest.raises(ValueError, match="conversation"):
        PythonTool(client)
