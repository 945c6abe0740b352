"""Back, forward and aside: rollbacks and forks of real machines, through the public SDK and the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

RANDOMNESS = "import random, uuid; (random.random(), uuid.uuid4().hex)"


def value(machine: torpor.Machine, code: str) -> str | None:
    return machine.run(code, timeout_seconds=120).raise_for_error().value


def command(server: ServerProcess, *arguments: str) -> str:
    """What a command writes to both streams; it must succeed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("torpor")), *arguments],
        env={"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def manifests(server: ServerProcess, name: str) -> list[str]:
    """What the store has of a machine but packs, which forks may need."""
    folder = server.data_dir / "store" / "machines" / name
    return [path.name for path in folder.iterdir() if path.suffix != ".pack"] if folder.is_dir() else []


def wait_until_nothing_is_left(server: ServerProcess, name: str) -> None:
    """Until a deleted machine's key is destroyed and what only it needed is collected."""
    deadline = time.monotonic() + 120
    while manifests(server, name) or (server.data_dir / "keys" / "machines" / name).exists():
        assert time.monotonic() < deadline, manifests(server, name)
        time.sleep(0.2)


def test_a_machine_goes_back_and_forward_again(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine()
        value(machine, "a = 1")
        machine.sync()
        value(machine, "a = 2; open('note', 'w').write('two')")
        [saved] = machine.snapshots()
        assert (saved.seq, saved.current) == (0, True)

        done = machine.rollback(generation=saved.generation)
        assert done.left_behind == (1,)
        assert value(machine, "a, __import__('os').path.exists('note')") == "(1, False)"
        assert "(rolled back)" in command(server, "log", machine.name)
        server.restart()
        assert value(machine, "a") == "1"
        told = command(server, "undo", machine.name)
        assert "Left behind: instructions 2, 3." in told
        assert value(machine, "a, open('note').read()") == "(2, 'two')"
        head = machine.snapshots()[0]
        assert "is kept" in command(server, "pin", machine.name, str(head.generation))
        listed = command(server, "snapshots", machine.name).splitlines()
        assert [line.split("\t")[0] for line in listed if "pinned" in line] == [str(head.generation)]
        command(server, "unpin", machine.name, str(head.generation))
        assert "pinned" not in command(server, "snapshots", machine.name)
        value(machine, "b = 1")
        value(machine, "b = 2")
        command(server, "rollback", machine.name, "--seq", "5")  # between two saves: it runs again
        assert value(machine, "a, b") == "(2, 1)"
        [aside] = command(server, "fork", machine.name, "--seq", "5").split()
        value(machine, "b = 3")
        assert value(client.machine(aside), "a, b") == "(2, 1)"
        assert "goes on from generation 0." in command(server, "rollback", machine.name, "--seq", "0")
        assert value(machine, "a") == "1"


def test_forks_go_their_own_ways_and_outlive_the_machine_that_they_came_from(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine()
        value(machine, "import threading; things = ['shared']; lock = threading.Lock()")
        machine.sync()
        value(machine, "things.append('later')")
        [saved] = machine.snapshots()
        names = command(server, "fork", machine.name, "--generation", str(saved.generation), "-n", "2").split()
        forks = [client.machine(name) for name in names]
        [now] = machine.fork()
        assert value(now, "things") == "['shared', 'later']"
        assert manifests(server, machine.name)
        machine.delete()
        wait_until_nothing_is_left(server, machine.name)
        server.stop()
        checked = server.torpor("fsck")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        for folder in ("images", "templates"):  # all comes from the store
            shutil.rmtree(server.data_dir / folder)
        server.start()

        for number, fork in enumerate(forks):
            value(fork, f"things.append({number})")
        assert [value(fork, "things") for fork in forks] == ["['shared', 0]", "['shared', 1]"]
        assert len({value(fork, RANDOMNESS) for fork in [*forks, now]}) == 3
        assert [instruction.seq for instruction in forks[0].history()] == [2, 1, 0]
