"""Deaths of the server and of sandboxes, stops in the middle of work, many sleeps: nothing acknowledged is lost."""

import threading
import time
from collections.abc import Callable, Iterator

import httpx2
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
    """One server for all of these tests: it has outlived the deaths of those before."""
    if not only_server.running:
        only_server.start()
    return only_server


@pytest.fixture
def machine(server: ServerProcess) -> Iterator[Machine]:
    """A new machine, the only one awake."""
    made = Machine(server)
    yield made
    print(server.log[-8000:])
    if server.running:
        with server.client() as client:
            assert client.delete(f"/v1/machine/{made.name}").is_success


@pytest.fixture(params=[ServerProcess.kill, ServerProcess.kill_all], ids=["server", "server and sandboxes"])
def crash(request: pytest.FixtureRequest, server: ServerProcess) -> Callable[[], None]:
    """Kill the server, alone or with its sandboxes, and start it again."""

    def kill_and_start() -> None:
        request.param(server)
        server.start()

    return kill_and_start


def test_a_kill_right_after_an_answer_loses_nothing_answered(crash: Callable[[], None], machine: Machine) -> None:
    machine.run("import random; values = []")
    answered = []
    for _ in range(2):
        answered.append(machine.run("values.append(random.random()); values[-1]"))
        crash()
        assert machine.run("len(values)") == str(len(answered))
    # Every answer stays as first given, though the values behind them may be other ones after a re-execution.
    assert [machine.result(seq)["value"] for seq in (1, 3)] == answered


def test_a_kill_after_a_save_brings_the_very_process_back(crash: Callable[[], None], machine: Machine) -> None:
    machine.run("import random; drawn = random.random()")
    drawn = machine.run("drawn")
    machine.post(f"{machine.name}/sync")
    crash()
    assert machine.run("drawn") == drawn


def test_an_instruction_in_the_middle_of_a_kill_is_done_after_it(crash: Callable[[], None], machine: Machine) -> None:
    machine.run("runs = 0")
    seq = machine.begin("import time\nruns += 1\nprint('begun', flush=True)\ntime.sleep(2)\nruns")
    assert next(machine.lines(seq)) == "begun"
    crash()
    assert machine.result(seq)["value"] == "1"
    assert machine.run("runs") == "1"


def test_a_kill_at_any_moment_of_falling_asleep_loses_nothing(server: ServerProcess, machine: Machine) -> None:
    machine.run("count = 0")
    for turn in range(4):
        assert machine.run("count += 1; count") == str(turn + 1)
        falling_asleep = threading.Thread(target=_sleep_unheard, args=(server, machine.name))
        falling_asleep.start()
        time.sleep(0.04 * turn)  # whatever it is doing then, the promise holds
        server.kill_all()
        falling_asleep.join()
        server.start()
    assert machine.run("count") == "4"


def _sleep_unheard(server: ServerProcess, name: str) -> None:
    try:
        with server.client() as client:
            client.post(f"/v1/machine/{name}/sleep")
    except httpx2.TransportError:
        pass


@pytest.mark.parametrize("caller", ["somebody asks", "nobody asks"])
def test_a_stop_in_the_middle_of_a_loop_goes_on_with_the_next_number(
    server: ServerProcess, machine: Machine, caller: str
) -> None:
    count = 60
    machine.run("import time")
    seq = machine.begin(f"for number in range({count}):\n    print(number, flush=True)\n    time.sleep(0.05)\nnumber")
    for line in machine.lines(seq):
        if line == "10":
            break
    server.stop()
    assert not server.sandboxes()
    server.start()
    if caller == "nobody asks":
        until(lambda: machine.detail()["state"] == "awake", "the machine to go on by itself")
    assert list(machine.lines(seq)) == [str(number) for number in range(count)]
    assert machine.result(seq)["value"] == str(count - 1)


LIVE_THINGS = """
import asyncio, sqlite3, subprocess, threading, time
counter = 0
file = open("/home/user/notes.txt", "w+")
ticks = 0
def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1
thread = threading.Thread(target=tick, daemon=True)
thread.start()
database = sqlite3.connect("/home/user/numbers.db", isolation_level=None)
database.execute("create table numbers (number)")
database.execute("begin")
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def count_up():
    number = 0
    while True:
        number += 1
        yield number
generator = count_up()
async def shout(reader, writer):
    writer.write((await reader.readline()).upper())
    writer.close()
listening = await asyncio.start_server(shout, "127.0.0.1", 0)
"""

USE_THEM = """
counter += 1
print(counter, file=file)
ticks_before = ticks
while ticks == ticks_before:
    time.sleep(0.01)
database.execute("insert into numbers values (?)", (counter,))
child.stdin.write(b"%d\\n" % counter)
child.stdin.flush()
reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
writer.write(b"hello\\n")
shouted = await reader.read()
writer.close()
[counter, next(generator), int(child.stdout.readline()), database.in_transaction, shouted, thread.is_alive()]
"""

READ_THEM = """
database.execute("commit")
file.seek(0)
child.stdin.close()
[file.read().split(), database.execute("select count(*), sum(number) from numbers").fetchall(), child.wait()]
"""


def test_ten_sleeps_in_a_row_leave_everything_alive(server: ServerProcess, machine: Machine) -> None:
    machine.run(LIVE_THINGS)
    for turn in range(1, 11):
        assert machine.run(USE_THEM) == f"[{turn}, {turn}, {turn}, True, b'HELLO\\n', True]"
        machine.sleep()
        if turn == 5:
            server.restart()
    assert machine.run(READ_THEM) == f"{[[str(turn) for turn in range(1, 11)], [(10, 55)], 0]}"
