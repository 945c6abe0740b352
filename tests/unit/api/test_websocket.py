"""The WebSocket of part 1."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.api import KEY, OTHER_KEY, Api
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus


class Repl:
    """A client of the WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            message: dict[str, Any] = json.loads(await self._connection.recv())
        return message

    async def send(self, message: Any) -> None:
        await self._connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def execute(self, code: str, request_id: int = 0) -> None:
        await self.send({"type": "exec", "instruction": {"code": code}, "request_id": request_id})


def dial(api: Api, machine: str, key: str | None = KEY, query: str = "", **headers: str) -> connect:
    url = str(api.client.base_url).replace("http", "ws", 1).rstrip("/")
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return connect(f"{url}/v1/machine/{machine}/repl{query}", additional_headers=headers, proxy=None)


async def test_it_says_which_machine_it_is_and_answers_in_order(live: Api) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        connected = await repl.receive()
        await repl.execute("for i in range(2): print(i)", request_id=7)
        messages = [await repl.receive() for _ in range(4)]

    assert connected == {"type": "connected", "machine_name": connected["machine_name"]}
    assert messages == [
        {"type": "exec_received", "seq": 0, "request_id": 7},
        {"type": "output", "chunk": {"stream": "stdout", "data": "0", "seq": 0}, "instruction_id": 0},
        {"type": "output", "chunk": {"stream": "stdout", "data": "1", "seq": 1}, "instruction_id": 0},
        {"type": "result", "instruction_id": 0, "result": {"value": None, "runtime_ms": 1}},
    ]


async def test_a_second_connection_reaches_the_same_machine(live: Api) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        machine = (await repl.receive())["machine_name"]
        await repl.execute("a = 3")
        while (await repl.receive())["type"] != "result":
            pass
    async with dial(live, machine) as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.execute("a + 5")
        await repl.receive()
        result = await repl.receive()

    assert result["result"]["value"] == "8"


async def test_a_busy_machine_queues(live: Api) -> None:
    machine = await live.new_machine()
    await live.execute(machine, "hang()")
    async with dial(live, machine) as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.execute("1 + 1")
        received = await repl.receive()
        while not (await live.client.post(f"/v1/machine/{machine}/interrupt")).json()["interrupted"]:
            pass
        result = await repl.receive()

    assert received["seq"] == 1
    assert result["result"]["value"] == "2"


async def test_code_is_stopped_over_the_socket_and_nothing_else_is(live: Api) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.send({"type": "interrupt", "request_id": 1})
        assert await repl.receive() == {"type": "interrupted", "seq": None, "request_id": 1}
        await repl.execute("hang()", request_id=2)
        await repl.execute("3 + 5", request_id=3)
        assert [(await repl.receive())["seq"] for _ in range(2)] == [0, 1]
        await repl.send({"type": "interrupt", "seq": 0, "request_id": 4})
        said = [await repl.receive() for _ in range(3)]
        assert {"type": "interrupted", "seq": 0, "request_id": 4} in said
        results = [message["result"] for message in said if message["type"] == "result"]
        assert "KeyboardInterrupt" in results[0]["error"]
        assert results[1]["value"] == "8"
        await repl.execute("hang()", request_id=5)
        await repl.send({"type": "exec", "instruction": {"code": "a = 3"}, "interrupt": True, "request_id": 6})
        said = [await repl.receive() for _ in range(4)]
        assert [message["type"] for message in said].count("result") == 2
        await repl.send({"type": "interrupt", "seq": 99, "request_id": 7})
        assert await repl.receive() == {"type": "interrupted", "seq": None, "request_id": 7}


async def test_what_a_broken_connection_missed_is_sent_again(live: Api) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        machine = (await repl.receive())["machine_name"]
        await repl.execute("print('said'); 3")
        first = [await repl.receive() for _ in range(3)][1:]
    async with dial(live, machine) as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.send({"type": "follow", "seq": 0})
        assert [await repl.receive() for _ in range(2)] == first
        await repl.send({"type": "follow", "seq": 1})
        assert (await repl.receive())["code"] == "instruction_not_found"
        await repl.send({"type": "follow"})
        assert "seq" in (await repl.receive())["message"]


async def test_a_browser_may_bring_its_key_in_the_query(live: Api) -> None:
    async with dial(live, "new", None, f"?_forevervm_jwt={KEY}") as connection:
        connected = await Repl(connection).receive()

    assert connected["type"] == "connected"


@pytest.mark.parametrize(
    ("machine", "key", "status", "code"),
    [
        ("new", None, 401, "unauthorized"),
        ("new", "alice.wrong", 401, "unauthorized"),
        ("A" * 16, KEY, 404, "machine_not_found"),
        ("short", KEY, 404, "machine_not_found"),
    ],
)
async def test_a_refused_connection_is_told_why(
    live: Api, machine: str, key: str | None, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with dial(live, machine, key):
            pass

    assert refusal.value.response.status_code == status
    assert json.loads(refusal.value.response.body or b"")["code"] == code


async def test_another_accounts_machine_is_not_found(live: Api) -> None:
    machine = await live.new_machine()

    with pytest.raises(InvalidStatus) as refusal:
        async with dial(live, machine, OTHER_KEY):
            pass

    assert refusal.value.response.status_code == 404


@pytest.mark.parametrize(
    "message",
    ["{", "[]", b"\xff", '{"type": "exec"}', '{"type": "dance"}', json.dumps({"type": "exec", "request_id": 1})],
)
async def test_a_bad_message_is_an_error_and_the_connection_lives_on(live: Api, message: str | bytes) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.send(message)
        error = await repl.receive()
        await repl.execute("1 + 1")
        await repl.receive()
        result = await repl.receive()

    assert (error["type"], error["code"]) == ("error", "invalid_request")
    assert error["id"]
    assert result["result"]["value"] == "2"


async def test_extra_fields_of_other_clients_are_ignored(live: Api) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        await repl.receive()
        instruction = {"code": "5", "max_runtime_ms": 10, "timeout_seconds": 15}
        await repl.send({"type": "exec", "instruction": instruction, "request_id": 0})
        await repl.receive()
        result = await repl.receive()

    assert result["result"]["value"] == "5"


@pytest.mark.parametrize(("sdk", "pinged"), [("rust", False), ("python", True)])
async def test_the_rust_sdk_is_never_pinged(live: Api, sdk: str, pinged: bool) -> None:
    async with dial(live, "new", KEY, "", **{"x-forevervm-sdk": sdk}) as connection:
        await Repl(connection).receive()
        # What would send the pings is armed when the connection is accepted.
        (protocol,) = (p for p in live.websocket_protocols() if p.handshake_complete)
        armed = protocol.ping_timer is not None

    assert armed is pinged


async def test_a_stopping_server_closes_with_service_restart(live: Api) -> None:
    async with dial(live, "new") as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.execute("hang()")
        await repl.receive()
        live.services.end_waits()
        await connection.wait_closed()

    assert connection.close_code == 1012


async def test_a_notice_is_told_before_the_next_result(live: Api) -> None:
    machine = await live.new_machine()
    await live.recover(machine)
    async with dial(live, machine) as connection:
        repl = Repl(connection)
        await repl.receive()
        await repl.execute("1")
        messages = [await repl.receive()]
        while messages[-1]["type"] != "result":
            messages.append(await repl.receive())

    assert [message["type"] for message in messages[:2]] == ["exec_received", "message"]
    assert messages[1]["level"] in ("info", "warn")
