"""A server is killed, its sandboxes are not: the next one goes on with them, and nobody could tell."""

import threading
from collections.abc import Iterator

import httpx2
import psutil
import pytest
from tests.support.remote_machine import Machine, until
from tests.support.server import ServerProcess

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def server(only_server: ServerProcess) -> ServerProcess:
    """One server for all of these tests."""
    if not only_server.running:
        only_server.start()
    return only_server


@pytest.fixture
def machine(server: ServerProcess) -> Iterator[Machine]:
    """A new machine, the only one awake."""
    made = Machine(server)
    yield made
    if server.running:
        with server.client() as client:
            assert client.delete(f"/v1/machine/{made.name}").is_success


def kill_and_start(server: ServerProcess) -> None:
    server.kill()
    server.start()


def pid_of(server: ServerProcess, machine: Machine) -> int:
    """The process id of the machine's sandbox."""
    machines = (server.data_dir / "sandboxes" / "machines").glob("*/machine")
    [folder] = [file.parent for file in machines if file.read_text() == machine.name]
    return int((folder / "pid").read_text())


def replayed(machine: Machine, server: ServerProcess) -> list[int]:
    """The instructions that were executed again."""
    with server.client() as client:
        rows = client.get(f"/v1/machine/{machine.name}/exec").json()["instructions"]
    return [row["instruction_seq"] for row in rows if row["replayed"]]


def test_a_loop_goes_on_while_its_server_is_killed_twice_and_each_number_is_there_once(
    server: ServerProcess, machine: Machine
) -> None:
    machine.run("import time")
    seq = machine.begin("for number in range(600):\n    print(number, flush=True)\n    time.sleep(0.02)\nnumber")
    for turn in (20, 200):
        for line in machine.lines(seq):
            if line == str(turn):
                break
        kill_and_start(server)
    assert list(machine.lines(seq)) == [str(number) for number in range(600)]
    assert machine.result(seq)["value"] == "599"
    assert machine.detail()["notices"] == []
    assert replayed(machine, server) == []


def test_an_idle_machines_thread_never_stops(server: ServerProcess, machine: Machine) -> None:
    machine.run(
        "import random, threading, time\nsecret, ticks = random.random(), 0\n"
        "def tick():\n"
        "    global ticks\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        ticks += 1\n"
        "thread = threading.Thread(target=tick); thread.start()"
    )
    secret, before = machine.run("secret"), machine.run("ticks")
    sandbox = pid_of(server, machine)
    kill_and_start(server)
    assert pid_of(server, machine) == sandbox
    assert machine.run("secret") == secret
    assert int(machine.run("ticks")) > int(before)
    assert machine.run("thread.is_alive()") == "True"
    assert machine.detail()["notices"] == []
    assert replayed(machine, server) == []
    machine.sleep()
    assert machine.run("secret, thread.is_alive()") == f"({secret}, True)"


@pytest.mark.parametrize("transition", ["sync", "sleep"])
def test_a_kill_in_the_middle_of_a_checkpoint_costs_nothing(
    server: ServerProcess, machine: Machine, transition: str
) -> None:
    machine.run("import os, random; secret = random.random(); data = os.urandom(200_000_000)")
    secret = machine.run("secret")
    saving = threading.Thread(target=_unheard, args=(server, f"/v1/machine/{machine.name}/{transition}"))
    saving.start()
    until(lambda: "checkpoint" in _arguments(server), "the checkpoint to begin")
    server.kill()
    saving.join()
    server.start()
    assert machine.run("secret, len(data)") == f"({secret}, 200000000)"
    assert machine.detail()["notices"] == []
    machine.sleep()
    assert machine.run("secret, len(data)") == f"({secret}, 200000000)"


def _unheard(server: ServerProcess, path: str) -> None:
    try:
        with server.client() as client:
            client.post(path)
    except httpx2.TransportError:
        pass


def _arguments(server: ServerProcess) -> set[str]:
    found: set[str] = set()
    for process in server.sandboxes():
        try:
            found.update(process.cmdline())
        except psutil.NoSuchProcess:
            continue
    return found


def test_an_instruction_that_ran_out_of_time_while_nobody_looked_is_ended_by_the_next_server(
    server: ServerProcess, machine: Machine
) -> None:
    machine.run("a = 3")
    seq = machine.post(f"{machine.name}/exec", {"instruction": {"code": "while True: pass", "timeout_seconds": 3}})
    kill_and_start(server)
    assert "Timed out" in machine.result(seq["instruction_seq"])["error"]
    assert machine.run("a + 5") == "8"


def test_where_adoption_is_turned_off_what_a_dead_server_left_running_is_removed(
    server: ServerProcess, machine: Machine
) -> None:
    machine.run("a = 3")
    left = pid_of(server, machine)
    server.kill()
    assert psutil.pid_exists(left)
    server.set(adopt=False)
    server.start()
    try:
        assert machine.run("a + 5") == "8"
        assert left not in {process.pid for process in server.sandboxes()}
    finally:
        server.set(adopt=True)
