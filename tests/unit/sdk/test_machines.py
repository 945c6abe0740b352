"""Machines through the client: what is asked, and what comes back."""

from __future__ import annotations

import base64
import inspect
import pickle

import pytest
from tests.support.stub_server import StubServer

import torpor

PNG = b"\x89PNG picture"
DISPLAY = {"type": "display", "data": {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}}


def test_a_value_comes_back_with_all_that_was_printed(stub: StubServer, machine: torpor.Machine) -> None:
    out = {"type": "stdout", "text": "adding\n"}
    stub.says("a + 5", out, {"type": "stderr", "text": "careful\n"}, value="8")
    result = machine.run("a + 5")
    assert (result.value, result.stdout, result.stderr, result.seq) == ("8", "adding\n", "careful\n", 0)
    assert result.ok
    assert result.raise_for_error() is result


def test_the_first_picture_is_there_as_bytes(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("plot()", DISPLAY, value=None)
    result = machine.run("plot()")
    assert result.png == PNG
    assert result.displays[0].data["text/plain"] == "<Figure>"


def test_a_value_that_is_a_picture_is_found_under_the_short_name_of_the_wire(
    stub: StubServer, machine: torpor.Machine
) -> None:
    stub.says("image", value="<Image>", data={"png": base64.b64encode(PNG).decode()})
    assert machine.run("image").png == PNG


def test_an_error_of_the_code_is_in_the_result_and_raised_only_when_asked(
    stub: StubServer, machine: torpor.Machine
) -> None:
    detail = {"name": "ZeroDivisionError", "message": "division by zero", "traceback": ["1 / 0\n"], "steps": ["x"]}
    stub.says("1 / 0", error="ZeroDivisionError: division by zero", error_detail=detail)
    result = machine.run("1 / 0")
    assert result.error == torpor.ErrorInfo("ZeroDivisionError", "division by zero", ("1 / 0\n",), ("x",))
    with pytest.raises(torpor.CodeError, match="ZeroDivisionError: division by zero") as raised:
        result.raise_for_error()
    assert raised.value.result is result
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_an_error_without_detail_is_read_from_its_text(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("spin()", error="Timed out after 1 s")
    assert str(machine.run("spin()").error) == "Timed out after 1 s"


def test_a_stream_gives_output_in_order_and_then_the_result(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("loop()", {"type": "stdout", "text": "0"}, {"type": "stderr", "text": "!"}, DISPLAY, value="9")
    stream = machine.stream("loop()")
    assert [event.type for event in stream] == ["stdout", "stderr", "display", "result"]
    assert stream.seq == 0
    assert stream.result().value == "9"


def test_output_is_shown_while_the_code_runs(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("loop()", {"type": "stdout", "text": "0"}, {"type": "novelty"}, DISPLAY, value="9")
    shown: list[str] = []
    assert machine.run("loop()", on_output=lambda event: shown.append(event.type)).value == "9"
    assert shown == ["stdout", "display"]


def test_code_that_runs_on_a_new_machine_names_it(stub: StubServer, client: torpor.Client) -> None:
    result = client.run("a = 3")
    assert list(stub.machines) == [result.machine_name]
    assert client.machine(result.machine_name).run("a").seq == 1


def test_only_what_was_said_is_sent(stub: StubServer, client: torpor.Client) -> None:
    client.new_machine()
    client.new_machine(tags={"user": "42"}, memory_mb=512, idle_seconds=None)
    assert stub.bodies == [{}, {"tags": {"user": "42"}, "memory_mb": 512, "idle_seconds": None}]
    client.machine("machine000000000").run("x", timeout_seconds=2.5, queue=True, interrupt=True)
    assert stub.bodies[-1] == {"code": "x", "timeout_seconds": 2.5, "queue": True, "interrupt": True}


def test_machines_are_listed_with_what_is_known_of_them(stub: StubServer, client: torpor.Client) -> None:
    client.new_machine()
    client.new_machine()
    found = client.machines(tags={"user": "42"})
    assert [machine.name for machine in found] == ["machine000000001", "machine000000000"]
    assert found[0].info is not None
    assert (found[0].info.state, found[0].info.tags) == ("asleep", {"user": "42"})
    assert stub.bodies[-1] == {"tags": {"user": "42"}}


def test_history_is_read_page_by_page_up_to_the_limit(stub: StubServer, machine: torpor.Machine) -> None:
    for number in range(250):
        stub.execute(machine.name, f"x = {number}")
    assert [instruction.seq for instruction in machine.history(limit=3)] == [249, 248, 247]
    assert [instruction.seq for instruction in machine.history()] == list(range(249, -1, -1))
    assert machine.instruction(7).code == "x = 7"


def test_an_instruction_can_be_followed_from_elsewhere(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("loop()", {"type": "stdout", "text": "0"}, value="9")
    machine.run("loop()")
    assert machine.attach(0).result().stdout == "0"


def test_a_deleted_machine_is_not_found(machine: torpor.Machine) -> None:
    machine.delete()
    with pytest.raises(torpor.MachineNotFound) as raised:
        machine.run("a")
    assert (raised.value.id, raised.value.hint, raised.value.status) == ("e1", "A hint.", 404)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_names_cannot_lead_to_another_address(stub: StubServer, client: torpor.Client) -> None:
    with pytest.raises(torpor.NotFound):
        client.machine("../whoami?x=", create=False).detail()
    assert stub.requests[-1][1] == "/v1/machine/..%2Fwhoami%3Fx%3D"


def test_results_and_machines_read_well(stub: StubServer, machine: torpor.Machine) -> None:
    stub.says("a + 5", {"type": "stdout", "text": "x" * 100}, value="8")
    stub.says("1 / 0", error="ZeroDivisionError: division by zero")
    assert repr(machine) == "Machine('machine000000000')"
    assert repr(machine.run("a + 5")) == f"Result(seq=0, value='8', stdout='{'x' * 59}…', runtime_ms=1)"
    assert repr(machine.run("1 / 0")) == "Result(seq=1, error='ZeroDivisionError: division by zero', runtime_ms=1)"


async def test_the_asynchronous_client_has_the_same_surface(stub: StubServer, async_client: torpor.AsyncClient) -> None:
    stub.says("loop()", {"type": "stdout", "text": "0"}, value="9")
    machine = await async_client.new_machine()
    assert (await machine.run("loop()")).value == "9"
    shown: list[str] = []

    async def show(event: torpor.Stdout | torpor.Stderr | torpor.Display) -> None:
        shown.append(event.type)

    assert (await machine.run("loop()", on_output=show)).stdout == "0"
    assert shown == ["stdout"]
    stream = machine.stream("loop()")
    assert [event.type async for event in stream] == ["stdout", "result"]
    assert (await stream.result()).seq == 2
    assert [instruction.seq async for instruction in machine.history()] == [2, 1, 0]
    assert [found.name for found in await async_client.machines()] == [machine.name]
    assert (await async_client.run("loop()")).machine_name != machine.name
    assert await machine.interrupt()
    await machine.sleep()
    await machine.delete()
    with pytest.raises(torpor.MachineNotFound):
        await machine.detail()


TWINS = [
    (torpor.Client, torpor.AsyncClient),
    (torpor.Machine, torpor.AsyncMachine),
    (torpor.RunStream, torpor.AsyncRunStream),
    (torpor.Execution, torpor.AsyncExecution),
    (torpor.Files, torpor.AsyncFiles),
    (torpor.Commands, torpor.AsyncCommands),
    (torpor.Command, torpor.AsyncCommand),
    (torpor.CommandStream, torpor.AsyncCommandStream),
    (torpor.Packages, torpor.AsyncPackages),
]


@pytest.mark.parametrize(("kind", "twin"), TWINS, ids=[kind.__name__ for kind, _ in TWINS])
def test_both_clients_offer_the_same(kind: type, twin: type) -> None:
    def public(kind: type) -> dict[str, list[tuple[str, object, object]] | None]:
        return {
            name: [(each.name, each.kind, each.default) for each in inspect.signature(member).parameters.values()]
            if inspect.isfunction(member)
            else None
            for name, member in vars(kind).items()
            if not name.startswith("_")
        }

    assert public(kind) == public(twin)
