"""Saves while a machine works: what a crash leaves of long instructions, and of answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.server import ServerProcess

from torpor import Client, InvalidRequest, Machine, Stdout

pytestmark = pytest.mark.acceptance

PATIENCE_SECONDS = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that saves busy machines every half second."""
    with ServerProcess(tmp_path_factory.mktemp("server"), save_interval_seconds=0.5) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    if not server.running:
        server.start()
    with Client(url=server.url, api_key=server.api_key) as client:
        yield client


@pytest.fixture
def machine(client: Client) -> Iterator[Machine]:
    made = client.new_machine()
    yield made
    made.delete()


def crash(server: ServerProcess, *, sandboxes: bool = True) -> None:
    """SIGKILL of the server, and of every sandbox, and the next start."""
    if sandboxes:
        server.kill_all()
    else:
        server.kill()
    server.start()


COUNT = 300
PRINT_NUMBERS = f"""
import os, time
token = os.urandom(8).hex()
print(token, flush=True)
for number in range({COUNT}):
    print(number, flush=True)
    time.sleep(0.03)
token
"""


def saved_in_the_middle(machine: Machine) -> int:
    """The generation of the machine's newest save with something running in it; -1 for none."""
    return max((one.generation for one in machine.snapshots() if not one.quiescent), default=-1)


def test_a_long_instruction_goes_on_from_the_save_in_its_middle_after_every_crash(
    server: ServerProcess, machine: Machine
) -> None:
    stream = machine.stream(PRINT_NUMBERS, timeout_seconds=300)
    token = next(event.text for event in stream if isinstance(event, Stdout)).split()[0]
    seq = stream.seq
    assert seq is not None
    generation = -1
    for _ in range(2):
        until(lambda: saved_in_the_middle(machine) > generation, "a save in the middle")  # noqa: B023 (used at once)
        generation = saved_in_the_middle(machine)
        crash(server)
    result = machine.attach(seq).result()
    assert result.value == repr(token)
    assert result.stdout.split() == [token, *map(str, range(COUNT))]
    notices = {notice.code: notice.message for notice in machine.detail().notices}
    assert "from the middle of it" in notices["ran_again"]
    assert machine.run("token").value == repr(token)


def test_a_machine_that_answers_only_what_is_saved_never_runs_anything_again(
    server: ServerProcess, client: Client
) -> None:
    machine = client.new_machine(durability="instruction")
    machine.run("import random; drawn = []")
    for turn in range(1, 4):
        assert machine.run("drawn.append(random.random()); len(drawn)").value == str(turn)
        answer = machine.run("drawn").value
        crash(server, sandboxes=turn != 2)
        assert machine.run("drawn").value == answer
    assert not any(instruction.replayed for instruction in machine.history())
    assert {notice.code for notice in machine.detail().notices} <= {"restored"}
    machine.delete()


def test_what_did_nothing_since_its_save_is_not_saved_again_unless_something_lives_in_it(machine: Machine) -> None:
    def newest_after_a_sync() -> int:
        machine.sync()
        return machine.snapshots()[0].generation

    machine.run("a = 3")
    assert newest_after_a_sync() == newest_after_a_sync()
    machine.run("import threading, time; threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()")
    assert newest_after_a_sync() < newest_after_a_sync()


def test_an_awake_machine_gets_more_memory_and_other_habits_at_once(machine: Machine) -> None:
    fill = "kept = b'x' * (320 << 20); len(kept) >> 20"
    machine.update(memory_mb=256)
    # It stays over the limit: without a cgroup it is a watcher that looks, some times a second.
    assert machine.run(f"import time; {fill}; time.sleep(30)", timeout_seconds=60).error is not None
    machine.update(memory_mb=1024, idle_seconds=0.5)
    assert machine.run(fill, timeout_seconds=60).value == "320"
    until(lambda: machine.detail().state == "asleep", "the machine to fall asleep")
    with pytest.raises(InvalidRequest, match="memory_mb"):
        machine.update(memory_mb=256)
    assert machine.run("len(kept) >> 20").value == "320"


def test_each_phase_of_a_wake_from_the_store_has_taken_its_time(server: ServerProcess) -> None:
    with server.client() as http:
        name = http.post("/v1/machine/new", json={}).json()["machine_name"]
        http.post(f"/v1/machine/{name}/run", json={"code": "a = 3"})
        assert http.post(f"/v1/machine/{name}/sleep", json={}).json()["state"] == "asleep"
    server.stop()
    for folder in ("images", "templates"):
        shutil.rmtree(server.data_dir / folder)
    server.start()
    with server.client() as http:
        asked = {"code": "a + 5", "timings": True}
        answer = http.post(f"/v1/machine/{name}/run", json=asked).json()
        wake = answer["timings"]["wake"]
        assert answer["result"]["value"] == "8"
        assert min(wake[phase] for phase in ("lease", "fetch", "assemble", "sandbox", "first_frame")) > 0, wake
        # Each part counts once. The instruction waited for all of them, and for little else.
        assert sum(wake.values()) <= answer["timings"]["waited_ms"] + len(wake), answer["timings"]
