"""What code reads: `stdin` with it, answers while it runs; by HTTP and by the SDK, on sandboxes that are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.house import until
from websockets.asyncio.client import connect

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api

KEY = "alice.0123456789abcdef"
REQUEST = "application/vnd.torpor.input-request+json"


def asking(prompt: str = "Name? ", **more: Any) -> str:
    """Code that shows a question as guests do, and then waits for a line."""
    bundle = {"data": {REQUEST: {"prompt": prompt, "password": False, "read_bytes": 0, **more}}, "metadata": {}}
    return f"write('display', {json.dumps(bundle).encode()!r}); lines(1)"


@pytest.fixture
async def client(live: Api) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        yield client


@pytest.fixture
async def machine(client: torpor.AsyncClient) -> torpor.AsyncMachine:
    return await client.new_machine()


async def test_code_reads_what_came_with_it(api: Api) -> None:
    machine = await api.new_machine()
    body = {"code": "input(), input()", "stdin": "one\ntwo\n"}
    answer = (await api.client.post(f"/v1/machine/{machine}/run", json=body)).json()
    assert answer["result"]["value"] == "('one', 'two')"
    assert (await api.client.get(f"/v1/machine/{machine}/exec/0")).json()["stdin"] == "one\ntwo\n"
    body = {"instruction": {"code": "input()", "stdin": "three"}}
    await api.client.post(f"/v1/machine/{machine}/exec", json=body)
    result = (await api.client.get(f"/v1/machine/{machine}/exec/1/result")).json()["result"]
    assert result["value"] == "'three'"
    answer = (await api.client.post("/v1/run", json={"code": "input()", "stdin": "new"})).json()
    assert answer["result"]["value"] == "'new'"


async def test_a_repeat_reads_the_same_and_another_stdin_is_another_request(api: Api) -> None:
    machine = await api.new_machine()
    headers = {"Idempotency-Key": "k"}
    bodies = [{"code": "input()", "stdin": text} for text in ("one", "one", "two")]
    answers = [await api.client.post(f"/v1/machine/{machine}/run", json=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [200, 200, 422]
    assert answers[0].json()["instruction_seq"] == answers[1].json()["instruction_seq"] == 0


@pytest.mark.parametrize("stdin", ["x" * (1024 * 1024 + 1), "\ud800", 1, ["a"]])
async def test_what_cannot_be_read_is_refused(api: Api, stdin: Any) -> None:
    machine = await api.new_machine()
    body = json.dumps({"code": "1", "stdin": stdin})
    answer = await api.client.post(f"/v1/machine/{machine}/run", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["message"].startswith("stdin: ")


async def test_an_answer_is_sent_to_what_runs(api: Api) -> None:
    machine = await api.new_machine()
    path = f"/v1/machine/{machine}/exec/0/stdin"
    assert (await api.client.post(path, json={"data": "x"})).json()["code"] == "instruction_not_found"
    body = {"instruction": {"code": "lines(2)", "stdin": "one\n", "stdin_open": True}}
    await api.client.post(f"/v1/machine/{machine}/exec", json=body)
    for _ in range(2):  # a repeat is no second line
        answer = await api.client.post(path, json={"data": "two\n"}, headers={"Idempotency-Key": "k"})
        assert answer.json() == {"machine": machine, "instruction_seq": 0}
    result = (await api.client.get(f"/v1/machine/{machine}/exec/0/result")).json()["result"]
    assert result["value"] == "['one', 'two']"
    late = await api.client.post(path, json={"data": "three\n"})
    assert (late.status_code, late.json()["code"]) == (409, "instruction_not_running")
    await api.execute(machine, "hang()")
    closed = await api.client.post(f"/v1/machine/{machine}/exec/1/stdin", json={"data": "x"})
    assert (closed.status_code, closed.json()["code"]) == (409, "stdin_closed")
    assert "stdin_open" in closed.json()["hint"]


async def test_an_answer_by_the_seq_that_the_websocket_tells(live: Api) -> None:
    machine = await live.new_machine()
    url = f"{str(live.client.base_url).replace('http', 'ws', 1).rstrip('/')}/v1/machine/{machine}/repl"
    async with connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}, proxy=None) as socket:
        await socket.recv()
        instruction = {"code": "lines(1)", "stdin_open": True}
        await socket.send(json.dumps({"type": "exec", "instruction": instruction, "request_id": 0}))
        seq = json.loads(await socket.recv())["seq"]
        await live.client.post(f"/v1/machine/{machine}/exec/{seq}/stdin", json={"data": "here\n"})
        assert json.loads(await socket.recv())["result"]["value"] == "['here']"


async def test_a_question_is_an_event(machine: torpor.AsyncMachine) -> None:
    stream = machine.stream(asking("Key? ", password=True, read_bytes=7), stdin_open=True)
    async for event in stream:
        if isinstance(event, torpor.InputRequest):
            assert (event.prompt, event.password, event.read_bytes) == ("Key? ", True, 7)
            await stream.send_stdin("secret\n")
    assert (await stream.result()).value == "['secret']"
    again = (await machine.instruction(0)).events
    assert [event.type for event in again] == ["input_request"]


async def test_on_input_answers_questions(machine: torpor.AsyncMachine) -> None:
    asked: list[str] = []

    async def answer(question: torpor.InputRequest) -> str:
        await asyncio.sleep(0)
        asked.append(question.prompt)
        return "Ada"

    assert (await machine.run(asking(), on_input=answer)).value == "['Ada']"
    assert asked == ["Name? "]
    assert (await machine.run(asking(), on_input=lambda _: None)).value == "[]"
    shown: list[str] = []
    code = f"print('hello'); {asking()}"
    both = await machine.run(code, on_input=lambda _: "Bob", on_output=lambda event: shown.append(event.type))  # type: ignore[func-returns-value]
    assert (both.value, shown) == ("['Bob']", ["stdout"])


async def test_an_answer_that_comes_too_late_is_no_error(machine: torpor.AsyncMachine) -> None:
    async def has_ended() -> bool:
        return (await machine.instruction(0)).state == "finished"

    async def answer(_: torpor.InputRequest) -> str:
        await machine.interrupt()
        await until(has_ended)
        return "late"

    result = await machine.run(asking(), on_input=answer)
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"


async def test_an_execution_is_sent_input_wherever_it_was_started(machine: torpor.AsyncMachine) -> None:
    execution = await machine.start("lines(3)", stdin="one\n", stdin_open=True)
    await execution.send_stdin("two\n")
    await machine.execution(execution.seq).send_stdin("three\n")
    assert (await execution.wait()).value == "['one', 'two', 'three']"
    with pytest.raises(torpor.InstructionNotRunning):
        await execution.send_stdin("four\n")
    ended = await machine.start("lines(1)", stdin_open=True)
    await ended.close_stdin()
    assert (await ended.wait()).value == "[]"
    with pytest.raises(ValueError, match="not running yet"):
        await machine.stream("1", stdin_open=True).send_stdin("x")


async def test_the_synchronous_sdk_does_so_too(live: Api) -> None:
    def work() -> None:
        with torpor.Client(url=str(live.client.base_url), api_key=KEY) as client:
            machine = client.machine("reader")
            assert machine.run("input()", stdin="one").value == "'one'"
            assert machine.run(asking(), on_input=lambda question: question.prompt).value == "['Name? ']"
            stream = machine.stream(asking(), stdin_open=True)
            for event in stream:
                if isinstance(event, torpor.InputRequest):
                    stream.close_stdin()
            assert stream.result().value == "[]"
            execution = machine.start("lines(1)", stdin_open=True)
            execution.send_stdin("two\n")
            assert execution.wait().value == "['two']"

    await asyncio.to_thread(work)
