"""The database is lost: `torpor recover` makes another from the store and the keys, and machines go on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.s3_server import BUCKET, S3Server, s3_server
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


def value(machine: torpor.Machine, code: str) -> str | None:
    return machine.run(code, timeout_seconds=120).raise_for_error().value


def command(server: ServerProcess, *arguments: str) -> str:
    """What a command of the server's host says; it must succeed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("torpor")), *arguments],
        env=server.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lose_the_database(server: ServerProcess) -> None:
    for file in server.data_dir.glob("torpor.db*"):
        file.unlink()
    shutil.rmtree(server.data_dir / "output")


def test_machines_forks_and_lines_come_back_without_the_database(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine(tags={"team": "blue"}, memory_mb=512)
        value(machine, "a = 3; open('note', 'w').write('kept'); b = [0]")
        machine.sync()
        value(machine, "b.append(1)")
        [fork] = machine.fork()
        value(fork, "a = 30")
        machine.rollback(generation=0)
        value(machine, "b.append(2)")
        quiet = client.new_machine(template="data")
        value(quiet, "import pandas; frame = pandas.DataFrame({'x': [1, 2]})")
        for one in (machine, fork, quiet):
            one.sync()
        server.kill()  # its sandboxes live on, and are of no use to a ledger that knows nothing of them
        lose_the_database(server)
        shutil.rmtree(server.data_dir / "images")

        said: dict[str, Any] = json.loads(command(server, "recover", "--json"))
        assert {one["name"] for one in said["machines"]} == {machine.name, fork.name, quiet.name}
        assert not said["unusable"]
        server.start()
        with torpor.Client(url=server.url, api_key=said["api_keys"][server.account]) as again:
            back = again.machine(machine.name)
            assert back.detail().tags == {"team": "blue"}
            assert "rebuilt" in {notice.code for notice in back.detail().notices}
            assert list(back.history()) == []
            told = back.run("a + 5")
            assert (told.value, [notice.code for notice in told.notices]) == ("8", ["rebuilt"])
            assert value(back, "b, open('note').read()") == "([0, 2], 'kept')"
        assert value(fork, "a, b") == "(30, [0, 1])"
        assert value(quiet, "int(frame.x.sum())") == "3"
        left_behind = max(one.generation for one in machine.snapshots() if one.line == 0)
        machine.rollback(generation=left_behind)
        assert value(machine, "b") == "[0, 1]"
    server.stop()
    assert "All is well" in command(server, "fsck")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server() as bucket:
        for name, setting in bucket.environment().items():
            monkeypatch.setenv(name, setting)
        yield bucket


def test_a_bucket_and_a_folder_of_keys_are_enough_on_a_new_host(bucket: S3Server, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/machines"
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    counting = "import time\nfor n in range(80):\n    print(n, flush=True)\n    time.sleep(0.05)\nn"
    with (
        ServerProcess(tmp_path / "old", store_url=url) as old,
        torpor.Client(url=old.url, api_key=old.api_key) as client,
    ):
        name = client.new_machine().name
        value(client.machine(name), "a = 3")
        busy = client.new_machine()
        stream = busy.stream(counting, timeout_seconds=300)
        for event in stream:
            if isinstance(event, torpor.Stdout) and "10" in event.text:
                break
        seq = stream.seq
        old.stop()
    (tmp_path / "new" / "data").mkdir()
    shutil.copytree(old.data_dir / "keys", tmp_path / "new" / "data" / "keys")
    new = ServerProcess(tmp_path / "new", store_url=url)
    command(new, "recover")
    with new, torpor.Client(url=new.url, api_key=new.api_key) as client:
        assert value(client.machine(name), "a + 5") == "8"
        assert seq is not None
        goes_on = client.machine(busy.name).attach(seq).result()
        assert goes_on.value == "79"
        numbers = [int(line) for line in goes_on.stdout.split()]
        assert numbers == list(range(numbers[0], 80))
        assert client.machine(busy.name).instruction(seq).code == counting


def test_a_command_that_ran_in_a_snapshot_goes_on_without_the_database(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine()
        running = machine.commands.start("read line; echo got $line; read line; echo and $line; exit 3")
        running.send_stdin("one\n")
        with running.stream() as stream:
            assert next(iter(stream)).type == "stdout"
        machine.sleep()
        server.kill()
        lose_the_database(server)
        command(server, "recover", "--json")
        server.start()
        [info] = machine.commands.list()
        assert (info.seq, info.state, info.background) == (running.seq, "running", True)
        running.send_stdin("two\n")
        result = running.wait()
        assert (result.exit_code, result.stdout) == (3, "and two\n")  # what it said before is not known any more
        assert machine.run("1 + 1").seq > running.seq
