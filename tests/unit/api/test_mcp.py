"""MCP with its published client, the real application behind it, over both kinds of connection and both protocols."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from tests.support.api import AUTHORIZATION, KEY, OTHER_KEY, Api

import torpor
from torpor.tools.mcp import OwnSource, build_server
from torpor_api.app import create_app
from torpor_api.ledger import MachineSettings
from torpor_api.mounts import mounts
from torpor_api.server import bind, make_server, url_of

TOOLS = Path(__file__).with_name("mcp_tools.json")
ERAS = ["auto", "legacy"]


@pytest.fixture
async def api_client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


@pytest.fixture
async def machine(api_client: torpor.AsyncClient) -> torpor.AsyncMachine:
    return api_client.machine("mcp")


@asynccontextmanager
async def connected(api_client: torpor.AsyncClient, mode: str = "auto") -> AsyncIterator[Client]:
    async with Client(build_server(OwnSource(api_client)), mode=mode) as client:
        yield client


@pytest.fixture
async def url(live: Api) -> AsyncIterator[str]:
    """Where a server has it mounted."""
    with bind("127.0.0.1", 0) as listener:
        mounted = mounts(str(live.client.base_url))
        server = make_server(create_app(live.services, mounted))
        serving = asyncio.create_task(server.serve([listener]))
        yield f"{url_of(listener)}/mcp"
        server.should_exit = True
        await serving
        for mount in mounted:
            await mount.close()


@asynccontextmanager
async def over_http(url: str, mode: str = "auto", key: str = KEY) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def text_of(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - it is another process's, in truth
            await asyncio.sleep(0.01)


def has(machine: torpor.AsyncMachine, seq: int, state: str) -> Callable[[], Awaitable[bool]]:
    """Whether an instruction is in this state."""

    async def check() -> bool:
        try:
            return (await machine.instruction(seq)).state == state
        except (torpor.MachineNotFound, torpor.InstructionNotFound):
            return False

    return check


async def listed() -> list[dict[str, Any]]:
    async with torpor.AsyncClient(url="http://127.0.0.1:1", api_key=KEY) as client, connected(client) as mcp:
        return [
            tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in (await mcp.list_tools()).tools
        ]


async def test_the_tools_are_what_models_have_been_told() -> None:
    """Any change of a name or a word is one for every model: `python -m tests.unit.api.test_mcp` writes them anew."""
    assert await listed() == json.loads(TOOLS.read_text())


@pytest.mark.parametrize("mode", ERAS)
async def test_answers_errors_and_history(api_client: torpor.AsyncClient, mode: str) -> None:
    async with connected(api_client, mode) as client:
        assert "`run_python`" in (client.instructions or "")
        assert text_of(await client.call_tool("history", {})) == "(nothing yet)"
        assert not await api_client.machines(), "reading makes no machine"
        result = await client.call_tool("run_python", {"code": "a = 3"})
        assert (text_of(result), result.is_error, result.structured_content) == ("(no output)", False, None)
        failed = await client.call_tool("run_python", {"code": "1 / 0"})
        assert failed.is_error
        assert text_of(failed).endswith("ZeroDivisionError: division by zero")
        history = await client.call_tool("history", {"limit": 2})
        assert text_of(history).splitlines()[-1] == "0: 'a = 3' → ok"
        assert history.structured_content is not None
        assert [entry["instruction"] for entry in history.structured_content["entries"]] == [1, 0]
        for tool, arguments in (
            ("history", {"machine": "typo"}),
            ("fork_machine", {"machine": "typo"}),
            ("rollback_machine", {"machine": "typo", "after_instruction": 0}),
        ):
            refused = await client.call_tool(tool, arguments)
            assert refused.is_error
            assert "`list_machines`" in text_of(refused)
        assert [machine.info.alias for machine in await api_client.machines() if machine.info] == ["mcp"]


async def test_a_server_that_is_not_there_is_said_to_the_model() -> None:
    with bind("127.0.0.1", 0) as nowhere:
        url = url_of(nowhere)
    async with torpor.AsyncClient(url=url, api_key=KEY) as api_client, connected(api_client) as client:
        result = await client.call_tool("list_machines", {})
        assert result.is_error
        assert "The server does not answer" in text_of(result)
        assert "`torpor serve`" in text_of(result)


@pytest.mark.parametrize("mode", ERAS)
async def test_machines_are_resources(api_client: torpor.AsyncClient, mode: str) -> None:
    await api_client.machine("analysis").run("print('hello')")
    await api_client.new_machine()
    async with connected(api_client, mode) as client:
        uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert "torpor://machine/analysis" in uris
        assert len(uris) == 2
        for place, words in (("", '"alias": "analysis"'), ("/history", "print('hello')"), ("/output/0", "hello")):
            (content,) = (await client.read_resource(f"torpor://machine/analysis{place}")).contents
            assert words in content.text  # type: ignore[union-attr]
        templates = (await client.list_resource_templates()).resource_templates
        assert {template.uri_template for template in templates} == {
            "torpor://machine/{name}",
            "torpor://machine/{name}/history",
            "torpor://machine/{name}/output/{seq}",
            "torpor://machine/{name}/file/{+path}",
        }


LONG = {
    "value": ("list(range(5000))", str(list(range(5000)))),
    "display": ("write('display', b'{\"data\": {\"text/plain\": \"%s\"}}' % (b'ab' * 10**4))", "ab" * 10**4),
    "error": ("raise ValueError('ab' * 10**4)", "ab" * 10**4),
    "colours": (
        "print('\\x1b[32m' + 'a' * 9000)\nprint('\\x1b[31mcareful', kind='stderr')\nprint('b' * 9000)",
        f"{'a' * 9000}\n[stderr] careful\n{'b' * 9000}",
    ),
}


@pytest.mark.parametrize(("code", "shown"), LONG.values(), ids=LONG)
async def test_of_whatever_is_cut_every_character_can_be_read_where_the_answer_says(
    api_client: torpor.AsyncClient, code: str, shown: str
) -> None:
    async with connected(api_client) as client:
        await read_where_it_says(client, text_of(await client.call_tool("run_python", {"code": code})), shown)


async def test_of_a_command_too(api_client: torpor.AsyncClient) -> None:
    command = f"echo {'a' * 9000}; err {'b' * 9000}; exit 3"
    async with connected(api_client) as client:
        cut = text_of(await client.call_tool("run_command", {"command": command}))
        await read_where_it_says(client, cut, f"{'a' * 9000}\n[stderr] {'b' * 9000}")


async def read_where_it_says(client: Client, cut: str, shown: str) -> None:
    """The whole of an output from its resource, and again piece by piece, as the cut answer and each piece say."""
    (content,) = (await client.read_resource("torpor://machine/mcp/output/0")).contents
    whole: str = content.text  # type: ignore[union-attr]
    assert shown in whole
    said = re.search(
        r"\n\[… \d+ characters left out; `read_output` with `instruction` 0 and `start` (\d+)[^]]*\]\n", cut
    )
    assert said is not None
    assert whole.startswith(cut[: said.start()])
    assert whole.endswith(cut[said.end() :])
    position = int(said[1])
    assert len(cut[: said.start()]) <= position
    while position < len(whole):
        piece = text_of(await client.call_tool("read_output", {"instruction": 0, "start": position}))
        body, _, follow = piece.partition("\n[… ")
        end = int(follow.partition("`start` ")[2].partition(" ")[0]) if follow else len(whole)
        assert body == whole[position:end].removesuffix("\n")
        position = end
    last = await client.call_tool("read_output", {"instruction": 0, "start": -10})
    assert text_of(last) == whole[-10:]


async def test_what_is_said_so_far_can_be_read_too(
    api_client: torpor.AsyncClient, machine: torpor.AsyncMachine
) -> None:
    async with connected(api_client) as client:
        running = asyncio.create_task(client.call_tool("run_python", {"code": "print('so far'); hang()"}))

        async def said() -> str:
            return text_of(await client.call_tool("read_output", {"instruction": 0}))

        async def is_said() -> bool:
            return "so far" in await said()

        await until(has(machine, 0, "running"))
        await until(is_said)
        assert await said() == "so far\n[Instruction 0 is not finished yet.]"
        await machine.interrupt()
        assert "KeyboardInterrupt" in text_of(await running)
        missing = await client.call_tool("read_output", {"instruction": 7})
        assert missing.is_error


class Counting(httpx2.AsyncHTTPTransport):
    """A network that keeps how many machines were asked for, and had."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[tuple[str | None, int]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if request.url.path == "/v1/machine/list":
            await response.aread()
            self.pages.append((request.url.params.get("limit"), len(response.json()["machines"])))
        return response


async def test_of_many_machines_so_many_are_asked_for_as_are_shown(live: Api) -> None:
    settings = MachineSettings(1024, 60, tags={"project": "mars"})
    makings = (live.services.ledger.create_machine("alice", settings) for _ in range(1001))
    names = {name for name, _ in await asyncio.gather(*makings)}
    url, network = str(live.client.base_url), Counting()
    async with torpor.AsyncClient(url=url, api_key=KEY, transport=network) as api_client:
        found = [machine.name for machine in await api_client.machines(tags={"project": "mars"})]
        assert (len(found), set(found)) == (1001, names)
        assert network.pages == [("1000", 1000), ("1000", 1)]
        assert [machine.name for machine in await api_client.machines(limit=1001)] == found
        assert network.pages[2:] == [("1000", 1000), ("1", 1)]
        network.pages.clear()
        async with connected(api_client) as client:
            listed = await client.call_tool("list_machines", {})
            assert text_of(listed).splitlines()[-1] == "[and more]"
            assert listed.structured_content is not None
            assert [machine["name"] for machine in listed.structured_content["machines"]] == found[:50]
            assert listed.structured_content["more"] is True
            assert len((await client.list_resources()).resources) == 100
        assert network.pages == [("51", 51), ("100", 100)]

    def synchronous() -> list[str]:
        with torpor.Client(url=url, api_key=KEY) as client:
            assert [machine.name for machine in client.machines(limit=2)] == found[:2]
            assert client.machines(limit=0) == []
            return [machine.name for machine in client.machines()]

    assert await asyncio.to_thread(synchronous) == found


async def test_progress_only_grows_and_says_what_was_printed(api_client: torpor.AsyncClient) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async with connected(api_client) as client:
        await client.call_tool("run_python", {"code": "count(5, 0.6)"}, progress_callback=progress)
    assert len(told) >= 2
    assert told == sorted(told)
    assert all(message in ("0", "1", "2", "3", "4") for _, message in told)


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("http", [False, True], ids=["direct", "http"])
async def test_a_cancelled_call_ends_its_own_code_though_that_has_not_begun(
    api_client: torpor.AsyncClient, machine: torpor.AsyncMachine, url: str, mode: str, http: bool
) -> None:
    async with over_http(url, mode) if http else connected(api_client, mode) as client:
        first = asyncio.create_task(client.call_tool("run_python", {"code": "hang()"}))
        await until(has(machine, 0, "running"))
        second = asyncio.create_task(client.call_tool("run_python", {"code": "hang()"}))
        await until(has(machine, 1, "waiting"))
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await asyncio.sleep(0.2)  # whatever is to arrive of the cancellation does so
        assert (await machine.instruction(0)).state == "running"
        first.cancel()
        await until(has(machine, 1, "finished"))
        assert [(await machine.instruction(seq)).ended_by for seq in (0, 1)] == ["interrupt", "interrupt"]
        assert text_of(await client.call_tool("run_python", {"code": "a = 3"})) == "(no output)"


async def test_clients_with_the_same_numbers_cancel_only_their_own_calls(
    machine: torpor.AsyncMachine, api_client: torpor.AsyncClient, url: str
) -> None:
    other = api_client.machine("other")
    async with over_http(url, "legacy") as one, over_http(url, "legacy") as two:
        kept = asyncio.create_task(one.call_tool("run_python", {"code": "hang()"}))
        unwanted = asyncio.create_task(two.call_tool("run_python", {"code": "hang()", "machine": "other"}))
        await until(has(machine, 0, "running"))
        await until(has(other, 0, "running"))
        unwanted.cancel()
        await until(has(other, 0, "finished"))
        assert (await machine.instruction(0)).state == "running"
        await machine.interrupt()
        assert (await kept).is_error


async def test_clients_without_a_word_of_their_own_cannot_cancel_each_others_calls(
    machine: torpor.AsyncMachine, url: str
) -> None:
    arguments = {"name": "run_python", "arguments": {"code": "hang()"}}
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": arguments}
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=AUTHORIZATION | accept, timeout=60) as http:
        calling = asyncio.create_task(http.post(url, json=call))
        await until(has(machine, 0, "running"))
        assert (await http.post(url, json=cancel)).is_success
        await asyncio.sleep(0.2)  # whatever is to arrive of the cancellation does so
        assert (await machine.instruction(0)).state == "running"
        await machine.interrupt()
        assert "KeyboardInterrupt" in (await calling).text


async def test_pages_of_other_hosts_are_refused(url: str) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=AUTHORIZATION | accept) as http:
        for origin in ("https://evil.example", "http://localhost.evil.example", "null", "http://[", ""):
            answer = await http.post(url, json=request, headers={"Origin": origin})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), origin
        for origin in ("http://localhost:6274", "http://127.0.0.1:1", "http://[::1]", "vscode-webview://x"):
            answer = await http.post(url, json=request, headers={"Origin": origin})
            assert answer.status_code == 200, origin
        answer = await http.get(url)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        answer = await http.post(url, json=request, headers={"Authorization": "Basic x"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_a_key_opens_its_own_machines_only(url: str) -> None:
    async with over_http(url) as alice, over_http(url, key=OTHER_KEY) as bob:
        await alice.call_tool("run_python", {"code": "a = 3", "machine": "shared"})
        assert text_of(await bob.call_tool("list_machines", {})).startswith("(none yet")
        assert (await bob.call_tool("history", {"machine": "shared"})).is_error
        assert not (await bob.list_resources()).resources


async def test_commands_say_what_they_print_and_how_they_end(api_client: torpor.AsyncClient) -> None:
    async with connected(api_client) as client:
        result = await client.call_tool("run_command", {"command": "echo hello"})
        assert (text_of(result), result.is_error) == ("hello", False)
        failed = await client.call_tool("run_command", {"command": "exit 3"})
        assert failed.is_error
        assert "3" in text_of(failed)
        calling = asyncio.create_task(client.call_tool("run_command", {"command": "hang", "timeout_seconds": 600}))
        machine = api_client.machine("mcp")
        await until(has(machine, 2, "running"))
        calling.cancel()
        await until(has(machine, 2, "finished"))
        assert (await machine.commands.get(2).wait()).signal == "SIGKILL"
        assert "hello" in text_of(await client.call_tool("read_output", {"instruction": 0}))


if __name__ == "__main__":
    TOOLS.write_text(json.dumps(asyncio.run(listed()), indent=1, ensure_ascii=False) + "\n")
