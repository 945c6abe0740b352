"""Recovery as its users and operators see it: crashes on purpose, poisoned snapshots, ways out for a parked machine."""

from __future__ import annotations

import io
import pickle
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

DOOM = """
import os, threading, time
def doom():
    time.sleep(2)
    os._exit(7)
threading.Thread(target=doom).start()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, quiet_save_seconds=3600) as process:
        yield process


def value(machine: torpor.Machine, code: str) -> str | None:
    return machine.run(code, timeout_seconds=120).raise_for_error().value


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


def command(server: ServerProcess, *arguments: str, folder: Path | None = None) -> str:
    """What a command writes to both streams; it must succeed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("torpor")), *arguments],
        env={"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, "PATH": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def notices(machine: torpor.Machine) -> dict[str, list[int]]:
    return {notice.code: list(notice.seqs) for notice in machine.detail().notices}


def test_a_crash_on_purpose_shows_both_ways_of_recovery(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        for recovery, expected in (("replay", "2"), ("rollback", "1")):
            machine = client.new_machine(recovery=recovery)
            value(machine, "a = 1")
            machine.sync()
            value(machine, "a = 2")
            assert "was killed" in command(server, "debug", "crash", machine.name)
            assert value(machine, "a") == expected
            assert machine.detail().recovery == recovery
            assert notices(machine)["replayed" if recovery == "replay" else "effects_lost"] == [1]


def test_a_poisoned_snapshot_gives_way_to_an_older_one_though_the_server_is_killed_after_each_death(
    server: ServerProcess,
) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine(idle_seconds=None)
        value(machine, "a = 1")
        machine.sync()
        culprit = machine.run(DOOM)
        machine.sync()
        poisoned = machine.snapshots()[0].generation
        for deaths in range(1, 4):
            until(lambda expected=deaths: died(server, machine.name) >= expected, "the machine's process to die")
            if set_aside(server, machine.name):
                break
            server.kill()
            server.start()
        until(lambda: "undone" in notices(machine), "what kills it to be found")
        assert notices(machine)["undone"] == [culprit.seq]
        assert "set_aside" in notices(machine)
        assert value(machine, "a") == "1"
        [one] = [snapshot for snapshot in machine.snapshots() if snapshot.generation == poisoned]
        assert one.set_aside


def died(server: ServerProcess, machine: str) -> int:
    return len(events(server, machine, "died"))


def set_aside(server: ServerProcess, machine: str) -> bool:
    return bool(events(server, machine, "set_aside"))


def events(server: ServerProcess, machine: str, action: str) -> list[str]:
    """What the ledger has noted of a machine."""
    with closing(sqlite3.connect(server.data_dir / "torpor.db", timeout=60)) as database:
        query = "SELECT fields FROM events JOIN machines ON machines.id = machine_id WHERE name = ? AND action = ?"
        return [row[0] for row in database.execute(query, (machine, action))]


def test_a_parked_machine_gives_out_its_files_and_variables_and_can_be_brought_back(
    server: ServerProcess, tmp_path: Path
) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine()
        value(machine, "a = [1, 'two', 3.0]; f = lambda: 1; open('note.txt', 'w').write('hello'); print('said')")
        machine.sleep()
        [saved] = machine.snapshots()
        server.stop()
        with closing(sqlite3.connect(server.data_dir / "torpor.db", timeout=60)) as database, database:
            database.execute("UPDATE machines SET parked_reason = 'for a test' WHERE name = ?", (machine.name,))
        server.start()

        with pytest.raises(torpor.MachineParked):
            machine.run("a")
        assert "Wrote" in command(server, "recover", machine.name, "--how", "export", folder=tmp_path)
        with tarfile.open(tmp_path / f"{machine.name}.tar") as archive:
            assert archive.getnames() == ["machine.json", "log.jsonl", "state.tar"]
            inner = archive.extractfile("state.tar")
            assert inner is not None
            state = inner.read()
        with tarfile.open(fileobj=io.BytesIO(state)) as archive:
            member = archive.extractfile("variables/a.pickle")
            assert member is not None
            assert pickle.load(member) == [1, "two", 3.0]
            note = archive.extractfile("home/note.txt")
            assert note is not None
            assert note.read() == b"hello"
            left_out = archive.extractfile("LEFT-OUT.txt")
            assert left_out is not None
            assert b"variable f" in left_out.read()
        assert machine.detail().state == "parked"

        assert f"from generation {saved.generation}." in command(server, "recover", machine.name, "--how", "retry")
        assert value(machine, "a") == "[1, 'two', 3.0]"
