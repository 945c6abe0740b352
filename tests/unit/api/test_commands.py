"""Commands over HTTP and through the SDK, on sandboxes that are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api

KEY = "alice.0123456789abcdef"


@pytest.fixture
async def client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


@pytest.fixture
async def machine(client: torpor.AsyncClient) -> torpor.AsyncMachine:
    return await client.new_machine()


async def post(api: Api, machine: str, path: str = "", **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await api.client.post(f"/v1/machine/{machine}/commands{path}", json=body)
    return answer.status_code, answer.json()


async def test_one_round_trip_answers_with_all_of_it(api: Api) -> None:
    machine = await api.new_machine()
    status, answer = await post(api, machine, command="echo out; err no; exit 3")

    assert status == 200
    assert (answer["seq"], answer["exit_code"], answer["signal"], answer["timed_out"]) == (0, 3, None, False)
    assert (answer["stdout"], answer["stderr"]) == ("out\n", "no\n")
    assert answer["error"] == "CommandFailed: exit status 3"
    assert answer["notices"] == []
    assert set(answer["timings"]) == {"waited_ms", "runtime_ms", "total_ms", "waited_for_save_ms"}


async def test_history_and_part_1_show_commands_as_they_show_instructions(api: Api) -> None:
    machine = await api.new_machine()
    await post(api, machine, command=["echo", "a b"])
    await post(api, machine, command="exit 1")
    history = (await api.client.get(f"/v1/machine/{machine}/exec")).json()["instructions"]

    assert [(row["kind"], row["code"]) for row in history] == [("command", "exit 1"), ("command", "echo 'a b'")]
    results = [(await api.client.get(f"/v1/machine/{machine}/exec/{seq}/result")).json() for seq in range(2)]
    assert results[0]["result"]["value"] is None
    assert results[1]["result"]["error"] == "CommandFailed: exit status 1"
    lines = (await api.client.get(f"/v1/machine/{machine}/exec/0/stream-result")).text.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["output", "result"]


async def test_a_stream_has_the_events_and_how_it_ended(api: Api) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(
        f"/v1/machine/{machine}/commands",
        json={"command": "echo out; exit 2"},
        headers={"Accept": "application/x-ndjson"},
    )
    events = [json.loads(line) for line in answer.text.splitlines()]

    assert answer.headers["torpor-instruction-seq"] == "0"
    assert [event["type"] for event in events] == ["stdout", "error", "result"]
    assert (events[-1]["exit_code"], events[-1]["signal"], events[-1]["timed_out"]) == (2, None, False)


async def test_a_repeat_of_the_request_does_not_execute_it_again(api: Api) -> None:
    machine = await api.new_machine()
    path, body = f"/v1/machine/{machine}/commands", {"command": "echo once"}
    answers = [await api.client.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]

    assert [answer.json()["seq"] for answer in answers] == [0, 0]
    other = await api.client.post(path, json={"command": "echo other"}, headers={"Idempotency-Key": "k"})
    assert other.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": ""}, "command"),
        ({"command": []}, "command"),
        ({"command": "a\0b"}, "command"),
        ({"command": "a", "env": {"A=B": "1"}}, "env"),
        ({"command": "a", "timeout_seconds": 0}, "timeout_seconds"),
        ({"command": "a", "timeout_seconds": 100000}, "timeout_seconds"),
        ({"command": "a", "pty": {"rows": 0}}, "pty"),
        ({"command": "x" * 300_000}, "body"),
        ({"command": "a", "unknown": 1}, "unknown"),
    ],
)
async def test_what_cannot_be_executed_is_refused_by_name(api: Api, body: dict[str, Any], field: str) -> None:
    status, answer = await post(api, await api.new_machine(), **body)

    assert (status, answer["code"]) == (422, "invalid_request")
    assert field in answer["message"]


async def test_input_and_signals_for_what_cannot_take_them_are_refused(api: Api) -> None:
    machine = await api.new_machine()
    cell = await api.execute(machine, "1")
    _, ended = await post(api, machine, command="echo over")
    _, running = await post(api, machine, command="hang", background=True, stdin_open=False)

    for seq, code in ((99, "command_not_found"), (cell, "command_not_found"), (ended["seq"], "command_not_running")):
        assert (await post(api, machine, f"/{seq}/signal", signal="TERM"))[1]["code"] == code
    assert (await post(api, machine, f"/{running['seq']}/stdin", data="x"))[1]["code"] == "command_input_closed"
    assert (await post(api, machine, f"/{running['seq']}/stdin", data="?", encoding="base64"))[0] == 422
    assert (await post(api, machine, f"/{running['seq']}/signal", signal="NOSUCH"))[0] == 422
    assert (await post(api, machine, f"/{running['seq']}/signal", signal=9))[0] == 200


async def test_the_sdk_runs_a_command_and_shows_its_output_as_it_comes(machine: torpor.AsyncMachine) -> None:
    result = await machine.commands.run("echo out; err no; exit 3")
    assert (result.seq, result.exit_code, result.stdout, result.stderr) == (0, 3, "out\n", "no\n")
    assert not result.ok
    with pytest.raises(torpor.CommandFailed, match="exit status 3: no") as failed:
        result.raise_for_error()
    assert failed.value.result == result

    shown: list[str] = []
    again = await machine.commands.run("echo a; echo b", on_output=lambda event: shown.append(event.text))
    assert ("".join(shown), again.stdout, again.exit_code, again.raise_for_error()) == ("a\nb\n", "a\nb\n", 0, again)
    assert (await machine.commands.run("cat", stdin="given")).stdout == "given"


async def test_the_sdk_feeds_and_ends_a_command_in_the_background(machine: torpor.AsyncMachine) -> None:
    command = await machine.commands.start("cat; echo end")
    await command.send_stdin("text ")
    await command.send_stdin(b"bytes\n")
    await command.close_stdin()
    assert (await command.wait()).stdout == "text bytes\nend\n"
    assert await command.done()

    other = await machine.commands.start(["hang"])
    assert [info.seq for info in await machine.commands.list()] == [other.seq, command.seq]
    assert (await other.info()).state == "running"
    await other.signal("KILL")
    result = await machine.commands.get(other.seq).wait()
    assert (result.exit_code, result.signal) == (None, "SIGKILL")
    with pytest.raises(torpor.CommandNotRunning):
        await other.send_stdin("too late")
    with pytest.raises(torpor.CommandNotFound):
        await machine.commands.get(99).signal()


async def test_the_sdk_follows_a_command_that_sleeps_in_between(
    client: torpor.AsyncClient, machine: torpor.AsyncMachine
) -> None:
    command = await machine.commands.start("count 60 0.005")

    async def sleep() -> None:
        await asyncio.sleep(0.1)
        await machine.sleep()
        await machine.wake()

    result, _ = await asyncio.gather(command.wait(), sleep())
    assert result.stdout == "".join(f"{number}\n" for number in range(60))


async def test_the_sdk_has_the_same_for_those_without_asyncio(live: Api) -> None:
    await asyncio.to_thread(_without_asyncio, str(live.client.base_url))


def _without_asyncio(url: str) -> None:
    with torpor.Client(url=url, api_key=KEY) as client:
        machine = client.new_machine()
        assert machine.commands.run(["echo", "out"]).stdout == "out\n"
        command = machine.commands.start("cat; exit 4")
        command.send_stdin("text")
        command.close_stdin()
        shown: list[str] = []
        result = command.wait(on_output=lambda event: shown.append(event.text))
        assert (result.exit_code, "".join(shown)) == (4, "text")
        with machine.commands.stream("echo streamed") as stream:
            assert stream.result().stdout == "streamed\n"
            assert stream.seq == 2
        assert [info.seq for info in machine.commands.list(limit=1)] == [2]
        with pytest.raises(torpor.CommandNotFound):
            machine.commands.get(9).info()
