"""Networks and servers that fail: code runs once, streams go on, and what cannot be mended is said."""

from __future__ import annotations

import socket

import httpx2
import pytest
from tests.support.stub_server import API_KEY, Cut, Refuse, StubServer

import torpor

REPLAYED = {"type": "notice", "id": 7, "code": "replayed", "message": "Executed again.", "seqs": [0]}
OUTPUT = [{"type": "stdout", "text": text} for text in ("one ", "two ", "three ")]


def test_a_cut_connection_never_runs_code_twice(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("a += 1", *OUTPUT, value="4")
    stub.faults.extend([Cut(), Cut()])
    assert machine.run("a += 1").value == "4"
    assert stub.ran == ["a += 1"]
    assert len({headers["idempotency-key"] for _, path, headers in stub.requests if path.endswith("/run")}) == 1


def test_a_cut_connection_never_makes_two_machines(stub: StubServer, client: torpor.Client) -> None:
    stub.faults.append(Cut())
    client.new_machine()
    stub.faults.append(Cut())
    client.run("a = 3")
    assert len(stub.machines) == 2


def test_each_call_has_an_idempotency_key_of_its_own(stub: StubServer, machine: torpor.Machine) -> None:
    machine.run("a += 1")
    machine.run("a += 1")
    assert stub.ran == ["a += 1", "a += 1"]


@pytest.mark.parametrize("lines", [None, 0, 1, 2, 3])
def test_a_stream_goes_on_where_it_broke(stub: StubServer, machine: torpor.Machine, lines: int | None) -> None:
    stub.says("loop()", *OUTPUT, value="9")
    stub.faults.extend([Cut(lines), Cut(0), Cut(1)])
    stream = machine.stream("loop()")
    assert [event.text for event in stream if isinstance(event, torpor.Stdout)] == ["one ", "two ", "three "]
    result = stream.result()
    assert (result.stdout, result.value) == ("one two three ", "9")
    assert stub.ran == ["loop()"]


def test_a_stream_on_a_new_machine_goes_on_where_it_broke(stub: StubServer, client: torpor.Client) -> None:
    stub.says("loop()", *OUTPUT, value="9")
    machine = client.new_machine()
    stub.faults.append(Cut(1))
    assert machine.run("loop()", on_output=lambda event: None).stdout == "one two three "


async def test_an_asynchronous_stream_goes_on_where_it_broke(
    stub: StubServer, async_client: torpor.AsyncClient
) -> None:
    stub.says("loop()", *OUTPUT, value="9")
    machine = await async_client.new_machine()
    stub.faults.extend([Cut(), Cut(1), Refuse(503, "shutting_down"), Cut(1)])
    stream = machine.stream("loop()")
    assert [event.text async for event in stream if isinstance(event, torpor.Stdout)] == ["one ", "two ", "three "]
    assert (await stream.result()).value == "9"
    assert stub.ran == ["loop()"]


def test_a_stream_that_was_left_can_still_give_its_result(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("loop()", *OUTPUT, value="9")
    stream = machine.stream("loop()")
    next(iter(stream))
    stream.close()
    result = stream.result()
    assert (result.value, result.stdout) == ("9", "one two three ")
    assert stub.ran == ["loop()"]


def test_what_a_recovery_made_void_is_not_in_the_result(stub: StubServer, machine: torpor.Machine) -> None:
    restarted = {"type": "notice", "code": "output_restarted", "message": "Again."}
    stub.says("loop()", OUTPUT[0], restarted, OUTPUT[0], REPLAYED, value="9")
    stream = machine.stream("loop()")
    assert [event.type for event in stream] == ["stdout", "notice", "stdout", "notice", "result"]
    stub.says("loop()", OUTPUT[0], value="9")
    stub.machines[machine.name][0].script = stub.scripts["loop()"]
    result = stream.result()
    assert result.stdout == "one "
    assert [notice.code for notice in result.notices] == ["replayed"]


def test_a_notice_is_told_once_though_its_stream_was_cut_behind_it(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("loop()", *OUTPUT, REPLAYED, value="9")
    stub.faults.append(Cut(4))
    events = [event.type for event in machine.stream("loop()")]
    assert events == ["stdout", "stdout", "stdout", "notice", "result"]
    assert "notices=true" in stub.requests[-1][1]


@pytest.mark.parametrize(
    ("status", "code"), [(503, "shutting_down"), (503, "cannot_wake"), (429, "too_many_unfinished")]
)
def test_a_server_that_cannot_now_is_asked_again(
    stub: StubServer, machine: torpor.Machine, status: int, code: str
) -> None:
    stub.faults.extend([Refuse(status, code), Refuse(status, code)])
    assert machine.run("a").ok
    assert stub.ran == ["a"]


def test_a_server_that_never_can_is_believed_at_last(stub: StubServer) -> None:
    policy = torpor.RetryPolicy(total_seconds=0.05, first_delay_seconds=0.01)
    with torpor.Client(url=stub.url, api_key=API_KEY, retry=policy) as client:
        stub.faults.extend([Refuse(503, "shutting_down", "The server is stopping.")] * 100)
        with pytest.raises(torpor.ShuttingDown, match="The server is stopping"):
            client.whoami()


def test_a_refusal_is_not_asked_again(stub: StubServer, machine: torpor.Machine) -> None:
    stub.faults.append(Refuse(409, "machine_busy", "It is busy."))
    with pytest.raises(torpor.MachineBusy, match="It is busy"):
        machine.run("a")
    assert stub.ran == []


def test_a_wait_that_the_server_asks_for_is_not_longer_than_the_patience(stub: StubServer) -> None:
    policy = torpor.RetryPolicy(total_seconds=5)
    with torpor.Client(url=stub.url, api_key=API_KEY, retry=policy) as client:
        stub.faults.append(Refuse(429, "too_many_unfinished", retry_after="3600"))
        with pytest.raises(torpor.TooManyUnfinished):
            client.whoami()


def test_a_delete_whose_answer_was_lost_is_a_success(stub: StubServer, machine: torpor.Machine) -> None:
    stub.faults.append(Cut())
    machine.delete()
    assert not stub.machines
    with pytest.raises(torpor.MachineNotFound):
        machine.delete()


def test_a_server_that_is_not_there_is_named_soon(stub: StubServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        policy = torpor.RetryPolicy(first_contact_seconds=0.1)
        with (
            torpor.Client(url=url, api_key=API_KEY, retry=policy) as client,
            pytest.raises(torpor.ServerUnreachable, match="does not answer") as raised,
        ):
            client.whoami()
    assert "torpor serve" in str(raised.value.hint)


def test_something_else_at_the_address_is_recognised() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>welcome</html>"))
    client = torpor.Client(url="http://elsewhere", api_key=API_KEY, transport=transport)
    with pytest.raises(torpor.ProtocolError, match="/v1/whoami is not what a Torpor server says"):
        client.whoami()


def test_an_error_of_a_newer_server_is_kept_as_it_came() -> None:
    answer = {"code": "brand_new", "message": "Something new.", "id": "e9"}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(418, json=answer))
    client = torpor.Client(url="http://elsewhere", api_key=API_KEY, transport=transport)
    with pytest.raises(torpor.UnknownApiError, match="Something new") as raised:
        client.whoami()
    assert (raised.value.received_status, raised.value.received_code) == (418, "brand_new")


def test_an_answer_that_takes_long_is_joined_again() -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if len(asked) < 40:
            raise httpx2.ReadTimeout("Too long.", request=request)
        return httpx2.Response(200, json={"instruction_seq": 0, "result": {"value": "1", "runtime_ms": 1}})

    client = torpor.Client(url="http://elsewhere", api_key=API_KEY, transport=httpx2.MockTransport(answer))
    assert client.machine("m").run("slow()", timeout_seconds=500, queue=True).value == "1"
    assert {request.headers["Idempotency-Key"] for request in asked} == {asked[0].headers["Idempotency-Key"]}
    assert asked[0].extensions["timeout"]["read"] == 530
