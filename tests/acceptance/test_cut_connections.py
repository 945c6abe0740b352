"""A real server behind a real proxy that cuts connections after n bytes, for every n: all is done once, and whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.support.cutting_proxy import CutAfter, CuttingProxy, cutting_proxy
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

QUICK = torpor.RetryPolicy(first_delay_seconds=0.001, longest_delay_seconds=0.05)
LINES = 5
COUNTED = f"""
count += 1
for line in range({LINES}):
    print("Zeile", line, "№", flush=True)
count
"""
SLACK_BYTES = 20
"""By so much answers to the same code differ, as durations in them have more digits or fewer."""
SAID = "".join(f"Zeile {line} №\n" for line in range(LINES))


@dataclass
class Place:
    """A server, and a client that reaches it through a proxy."""

    proxy: CuttingProxy
    client: torpor.Client
    url: str
    api_key: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path_factory.mktemp("cut")))
        proxy = stack.enter_context(cutting_proxy(server.url))
        client = stack.enter_context(torpor.Client(url=proxy.url, api_key=server.api_key, retry=QUICK))
        yield Place(proxy, client, proxy.url, server.api_key)


@pytest.fixture
def machine(place: Place) -> torpor.Machine:
    machine = place.client.new_machine(idle_seconds=None)
    machine.run("count = 0")
    return machine


def size_of_answer(place: Place, machine: torpor.Machine, *, streamed: bool) -> int:
    """How many bytes the server answers to the code, cut nowhere."""
    place.proxy.arm(None)
    check(machine, 1, streamed=streamed)
    return place.proxy.answered_bytes


def check(machine: torpor.Machine, count: int, *, streamed: bool) -> None:
    """Run the code; it must have run for the `count`th time, and its result be complete."""
    shown: list[str] = []
    if streamed:
        with machine.stream(COUNTED) as stream:
            shown += [event.text for event in stream if isinstance(event, torpor.Stdout)]
            result = stream.result()
        assert "".join(shown) == SAID
    else:
        result = machine.run(COUNTED)
    assert (result.value, result.stdout, result.seq, result.error) == (str(count), SAID, count, None)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "in one piece"])
def test_an_answer_cut_at_every_byte_is_of_code_that_ran_once_and_is_complete(
    place: Place, machine: torpor.Machine, streamed: bool
) -> None:
    size = size_of_answer(place, machine, streamed=streamed)
    count = 1
    for byte_count in range(size):
        place.proxy.arm(CutAfter(byte_count, reset=byte_count % 2 == 1))
        count += 1
        check(machine, count, streamed=streamed)
        assert place.proxy.cuts_made == 1 or byte_count > size - SLACK_BYTES
    assert [row.seq for row in machine.history()] == list(range(count, -1, -1))


def test_a_request_cut_at_any_byte_runs_once(place: Place, machine: torpor.Machine) -> None:
    count = 0
    for byte_count in range(0, 400, 3):
        place.proxy.arm(CutAfter(byte_count, "request", reset=byte_count % 2 == 1))
        count += 1
        check(machine, count, streamed=byte_count % 4 == 0)
        assert place.proxy.cuts_made == 1
    assert [row.seq for row in machine.history()] == list(range(count, -1, -1))


def test_a_stream_that_is_cut_again_and_again_arrives_whole(place: Place, machine: torpor.Machine) -> None:
    size = size_of_answer(place, machine, streamed=True)
    for count, byte_count in enumerate(range(250, size - SLACK_BYTES, 15), start=2):
        place.proxy.arm(CutAfter(byte_count, times=8))
        check(machine, count, streamed=True)
        assert place.proxy.cuts_made >= 1
    place.proxy.arm(None)


def test_code_in_the_background_is_started_once_wherever_the_answer_is_cut(
    place: Place, machine: torpor.Machine
) -> None:
    place.proxy.arm(None)
    first = machine.start(COUNTED)
    size = place.proxy.answered_bytes
    first.wait()
    for count, byte_count in enumerate(range(0, size, 5), start=2):
        place.proxy.arm(CutAfter(byte_count))
        execution = machine.start(COUNTED)
        assert place.proxy.cuts_made == 1
        place.proxy.arm(CutAfter(byte_count * 3))
        result = execution.wait()
        assert (execution.seq, result.value, result.stdout) == (count, str(count), SAID)
    place.proxy.arm(None)


def test_a_machine_is_made_once_wherever_the_answer_is_cut(place: Place) -> None:
    before = {machine.name for machine in place.client.machines()}
    made = set()
    for byte_count in range(0, 150, 10):
        place.proxy.arm(CutAfter(byte_count, reset=byte_count % 20 == 0))
        made.add(place.client.new_machine().name)
        assert place.proxy.cuts_made == 1
        place.proxy.arm(CutAfter(byte_count))
        made.add(place.client.new_machine(alias=f"cut-{byte_count}").name)
        place.proxy.arm(CutAfter(byte_count))
        made.add(place.client.run("a = 3").machine_name)
    place.proxy.arm(None)
    assert len(made) == 3 * len(range(0, 150, 10))
    assert {machine.name for machine in place.client.machines()} - before == made


def test_a_fork_is_made_once_wherever_the_answer_is_cut(place: Place, machine: torpor.Machine) -> None:
    before = {found.name for found in place.client.machines()}
    forks = set()
    for byte_count in range(0, 180, 20):
        place.proxy.arm(CutAfter(byte_count))
        forks.update(fork.name for fork in machine.fork(count=2))
        assert place.proxy.cuts_made == 1
    place.proxy.arm(None)
    assert len(forks) == 2 * len(range(0, 180, 20))
    assert {found.name for found in place.client.machines()} - before == forks
    assert place.client.machine(min(forks)).run("count").value == "0"


async def test_asynchronous_streams_are_cut_at_any_byte_too(place: Place, machine: torpor.Machine) -> None:
    async with torpor.AsyncClient(url=place.url, api_key=place.api_key, retry=QUICK) as client:
        twin = client.machine(machine.name)
        size = size_of_answer(place, machine, streamed=True)
        for count, byte_count in enumerate(range(0, size - SLACK_BYTES, 11), start=2):
            place.proxy.arm(CutAfter(byte_count, reset=byte_count % 2 == 1))
            stream = twin.stream(COUNTED)
            shown = [event.text async for event in stream if isinstance(event, torpor.Stdout)]
            result = await stream.result()
            assert ("".join(shown), result.value, result.stdout) == (SAID, str(count), SAID)
            assert place.proxy.cuts_made == 1
    place.proxy.arm(None)


def test_a_delete_is_a_success_wherever_the_answer_is_cut(place: Place) -> None:
    machines = [place.client.new_machine() for _ in range(6)]
    for machine, byte_count in zip(machines, range(0, 120, 20), strict=True):
        place.proxy.arm(CutAfter(byte_count))
        machine.delete()
        assert place.proxy.cuts_made == 1
    place.proxy.arm(None)
    for machine in machines:
        with pytest.raises(torpor.MachineNotFound):
            machine.delete()
