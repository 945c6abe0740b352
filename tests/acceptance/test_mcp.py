"""MCP with its published client: the tools that a model calls, a machine on real gVisor, and all of it again later."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

COMMAND = str(Path(sys.executable).with_name("torpor"))
PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"


def environment(server: ServerProcess) -> dict[str, str]:
    return server.environment() | {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key}


@asynccontextmanager
async def over_stdio(server: ServerProcess, *arguments: str) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=COMMAND, args=["mcp", *arguments], env=environment(server))
    async with Client(stdio_client(parameters)) as client:
        yield client


@asynccontextmanager
async def over_http(server: ServerProcess, api_key: str | None = None, **headers: str) -> AsyncIterator[Client]:
    own = {"Authorization": f"Bearer {api_key or server.api_key}", **headers}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=own, timeout=60))
        yield await stack.enter_async_context(Client(streamable_http_client(f"{server.url}/mcp", http_client=http)))


WAYS = {"standard input": over_stdio, "HTTP": over_http}


async def call(client: Client, tool: str, **arguments: Any) -> tuple[str, list[bytes], bool]:
    """Text, images, and whether it is an error."""
    result = await client.call_tool(tool, arguments)
    texts = [block.text for block in result.content if block.type == "text"]
    images = [base64.b64decode(block.data) for block in result.content if block.type == "image"]
    return "\n".join(texts), images, bool(result.is_error)


async def value(client: Client, code: str, **arguments: Any) -> str:
    """What code gives, without the notices of the machine's recoveries."""
    return (await call(client, "run_python", code=code, **arguments))[0].partition("\n")[0]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_conversation_goes_on_after_machine_server_and_client_have_gone(
    server: ServerProcess, way: Any
) -> None:
    async with way(server) as client:
        assert "always there" in (client.instructions or "")
        assert await call(client, "run_python", code="a = 3") == ("(no output)", [], False)
        text, images, is_error = await call(client, "run_python", code=PLOT)
        assert (text.splitlines()[-1], is_error) == ("drawn", False)
        assert [image[:8] for image in images] == [b"\x89PNG\r\n\x1a\n"]
        text, _, is_error = await call(client, "run_python", code="1 / 0")
        assert is_error
        assert text.endswith("ZeroDivisionError: division by zero")
    with torpor.Client(url=server.url, api_key=server.api_key) as api:
        api.machine("mcp", create=False).sleep()
    server.restart()
    async with way(server) as client:
        assert await call(client, "run_python", code="a + 5") == ("8", [], False)
        assert "0: 'a = 3'" in (await call(client, "history"))[0]


async def test_machines_are_made_copied_taken_back_and_read(server: ServerProcess) -> None:
    async with over_http(server, **{"Torpor-Machine": "work"}) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert {"run_python", "history", "read_output", "new_machine", "fork_machine", "rollback_machine"} <= set(names)
        await call(client, "run_python", code="a = 3")
        await call(client, "run_python", code="a = 4")
        fork, _, _ = await call(client, "fork_machine", after_instruction=0)
        assert await value(client, "a", machine=fork) == "3"
        text, _, _ = await call(client, "rollback_machine", after_instruction=0)
        assert "left behind: 1" in text
        assert await value(client, "a") == "3"
        generation = int(text.rpartition("generation ")[2].rstrip("."))
        await call(client, "undo_rollback", generation=generation)
        assert await value(client, "a") == "4"
        assert "is there" in (await call(client, "new_machine", name="other", template="data"))[0]
        listed, _, _ = await call(client, "list_machines")
        assert {"work", "other"} <= {line.partition(":")[0] for line in listed.splitlines()}
        (content,) = (await client.read_resource("torpor://machine/work")).contents
        assert '"alias": "work"' in content.text  # type: ignore[union-attr]


async def test_of_a_flood_a_model_sees_both_ends_and_can_read_the_rest(server: ServerProcess) -> None:
    async with over_http(server) as client:
        text, _, _ = await call(client, "run_python", code="print('first'); print('x' * 100_000); print('last')")
        assert text.startswith("first")
        assert text.endswith("last")
        assert len(text) < 20_000
        piece, _, _ = await call(client, "read_output", instruction=0, start=-10)
        assert piece == "xxxxx\nlast"
        piece, _, _ = await call(client, "read_output", instruction=0, start=6)
        assert piece.startswith("x" * 100)
        assert "`start` 16006 shows them" in piece
        text, _, _ = await call(client, "run_python", code="list(range(10**5))")
        assert "`read_output` with `instruction` 1 and `start` " in text
        piece, _, _ = await call(client, "read_output", instruction=1, start=-10)
        assert piece == "98, 99999]"
        (content,) = (await client.read_resource("torpor://machine/mcp/output/1")).contents
        assert content.text == str(list(range(10**5)))  # type: ignore[union-attr]


async def test_what_cannot_be_done_is_said_to_the_model(server: ServerProcess) -> None:
    async with over_http(server) as client:
        text, _, is_error = await call(client, "run_python", code="1", machine="a" * 16)
        assert "No machine of this name belongs to the account." in text
        assert "`list_machines`" in text
        assert is_error
        text, _, is_error = await call(client, "read_output", instruction=7)
        assert is_error
        text, _, is_error = await call(client, "run_python", code="1", timeout_seconds=10**6)
        assert "at most" in text
        assert is_error


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_cancelled_call_ends_its_code_and_nothing_else(server: ServerProcess, way: Any) -> None:
    async with torpor.AsyncClient(url=server.url, api_key=server.api_key) as api:
        machine = api.machine("mcp")
        await machine.run("a = 3")
        async with way(server) as client:
            running = asyncio.create_task(call(client, "run_python", code="while True: pass", timeout_seconds=600))
            while not (await machine.detail()).has_pending_instruction:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert (await call(client, "run_python", code="a + 5"))[0] == "8"
        assert (await machine.instruction(1)).ended_by == "interrupt"


async def test_code_goes_on_over_a_restart_of_the_server_in_the_middle_of_its_call(server: ServerProcess) -> None:
    async with torpor.AsyncClient(url=server.url, api_key=server.api_key) as api:
        machine = api.machine("mcp")
        await machine.run("import time")
        async with over_stdio(server) as client:
            code = "for i in range(60): time.sleep(0.1)\ni"
            running = asyncio.create_task(call(client, "run_python", code=code, timeout_seconds=60))
            while not (await machine.detail()).has_pending_instruction:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart)
            assert (await running)[0].startswith("59")
        assert (await machine.instruction(1)).ended_by is None


async def test_commands_and_code_see_the_same_files(server: ServerProcess) -> None:
    async with over_http(server) as client:
        text, _, is_error = await call(client, "run_command", command="echo hello > note; ls -l nowhere; exit 3")
        assert is_error
        assert "nowhere" in text
        assert "3" in text
        assert await value(client, "open('note').read()") == "'hello\\n'"
        assert await call(client, "run_command", command="wc -c", stdin="hello") == ("5", [], False)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_files_are_written_shown_and_changed_and_outlive_the_server(server: ServerProcess, way: Any) -> None:
    async with way(server) as client:
        assert "4 bytes" in (await call(client, "write_file", path="data/in.csv", content="a\n1\n"))[0]
        assert await value(client, "import pandas as pd; int(pd.read_csv('data/in.csv').a.sum())") == "1"
        assert not (await call(client, "edit_file", path="data/in.csv", old="1", new="3"))[2]
        await value(client, f"{PLOT.partition('; plt.show')[0]}; plt.savefig('data/plot.png')")
        _, images, is_error = await call(client, "read_file", path="data/plot.png")
        assert ([image[:8] for image in images], is_error) == ([b"\x89PNG\r\n\x1a\n"], False)
        await value(client, "import zipfile; zipfile.ZipFile('data/a.zip', 'w').writestr('a', 'hello')")
        result = await client.call_tool("read_file", {"path": "data/a.zip"})
        assert [block.type for block in result.content] == ["text", "resource"]
        text, _, is_error = await call(client, "read_file", path="data")
        assert is_error
        assert "`list_files`" in text
    with torpor.Client(url=server.url, api_key=server.api_key) as api:
        api.machine("mcp", create=False).sleep()
    server.restart()
    async with way(server) as client:
        listed, _, _ = await call(client, "list_files", folder="data")
        assert [line.partition(":")[0] for line in listed.splitlines()] == ["a.zip", "in.csv", "plot.png"]
        assert await call(client, "read_file", path="data/in.csv") == ("a\n3\n", [], False)
        assert (await call(client, "read_file", path="/etc/hostname"))[0] == "torpor\n"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_cancelled_write_is_done_as_a_whole_or_not_at_all(server: ServerProcess, way: Any) -> None:
    async with torpor.AsyncClient(url=server.url, api_key=server.api_key) as api, way(server) as client:
        files = api.machine("mcp").files
        await files.write("file", b"old")
        names = [file.name for file in await files.list()]
        new = "new" * 1_000_000
        for delay in (0.0, 0.05, 0.1, 0.2):
            writing = asyncio.create_task(call(client, "write_file", path="file", content=new))
            await asyncio.sleep(delay)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            assert await files.read("file") in (b"old", new.encode())
        async with asyncio.timeout(30):  # what was begun is cleared away behind the client's back
            while [file.name for file in await files.list()] != names:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
        await call(client, "write_file", path="file", content="last")
        assert await files.read("file") == b"last"


async def test_long_work_reports_what_it_prints(server: ServerProcess) -> None:
    told: list[str | None] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with over_stdio(server) as client:
        code = "import time\nfor i in range(4):\n    print('step', i, flush=True)\n    time.sleep(0.7)"
        await client.call_tool("run_python", {"code": code}, progress_callback=progress)
        assert any(message and message.startswith("step") for message in told)
        told.clear()
        await client.call_tool("run_python", {"code": "time.sleep(7)"}, progress_callback=progress)
    assert any(message and "running for" in message for message in told)


async def test_each_key_has_its_own_machines_and_none_opens_nothing(server: ServerProcess) -> None:
    async with httpx2.AsyncClient() as http:
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in ({}, {"Authorization": "Bearer tester.wrong"}):
            answer = await http.post(f"{server.url}/mcp", json=request, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    server.set(bootstrap_api_key="other.0123456789abcdef0123")
    async with over_http(server) as client:
        await call(client, "run_python", code="a = 3", machine="shared")
    server.restart()
    async with over_http(server, "other.0123456789abcdef0123") as client:
        assert (await call(client, "run_python", code="a", machine="shared"))[2]
