"""`torpor exec` and `torpor sh` against a real server, in pipes and on a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.remote_commands import Commands
from tests.support.server import ServerProcess
from tests.support.terminal import COMMAND, PATIENCE_SECONDS, terminal

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def environment(server: ServerProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
    own = {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, "XDG_STATE_HOME": str(tmp_path / "state")}
    return kept | own | {"TERM": "xterm"}


@pytest.fixture
def name(environment: dict[str, str]) -> str:
    return torpor(environment, "new").stdout.decode().strip()


def torpor(environment: dict[str, str], *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_what_goes_in_and_comes_out_is_the_commands_and_so_is_the_exit_status(
    environment: dict[str, str], name: str
) -> None:
    done = torpor(environment, "exec", name, "--", "sh", "-c", "cat; echo wrong >&2; exit 7", stdin=b"through\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"through\n", b"wrong\n")
    big = torpor(environment, "exec", name, "wc", "-c", stdin=b"x" * 1_000_000)
    assert big.stdout.strip() == b"1000000"
    assert (
        torpor(environment, "exec", "-w", "/tmp", "-e", "A=b", name, "sh", "-c", "pwd; echo $A").stdout == b"/tmp\nb\n"
    )
    assert torpor(environment, "exec", name, "--", "sh", "-c", "kill -KILL $$").returncode == 137
    assert torpor(environment, "exec", "-t", "1", name, "sleep", "100").returncode == 124
    assert torpor(environment, "exec", name, "no-such-program").returncode == 127
    assert torpor(environment, "sh", name, "-c", "seq 3 | tail -1").stdout == b"3\n"
    shell = torpor(environment, "sh", name)
    assert shell.returncode == 3
    assert b"There is no terminal for a shell" in shell.stderr


def test_ctrl_c_is_passed_on_and_the_second_leaves_it_running(
    server: ServerProcess, environment: dict[str, str], name: str
) -> None:
    line = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [COMMAND, "exec", name, "--", "bash", "-c", line],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert f"torpor sh {name} --attach 0" in errors
    assert Commands(server, name).one(0)["state"] == "running"


def test_a_detached_command_prints_its_number(server: ServerProcess, environment: dict[str, str], name: str) -> None:
    done = torpor(environment, "exec", "-d", name, "sleep", "1000")
    assert done.stdout == b"0\n"
    assert Commands(server, name).one(0)["background"]


def test_a_shell_on_a_terminal_is_left_and_gone_on_with_after_a_sleep(
    server: ServerProcess, environment: dict[str, str], name: str
) -> None:
    with terminal(environment | {"COLUMNS": "80"}, "sh", name, columns=90) as screen:
        screen.wait_for("$ ")
        screen.type("stty size; colour=gr''een\r")
        screen.wait_for("24 90")
        screen.resize(70, 30)
        screen.type("sleep 0.5; stty size\r")
        screen.wait_for("30 70")
        screen.type("sleep 1000\r")
        screen.wait_for("sleep 1000")
        screen.wait_until(lambda: "sleep" in torpor(environment, "sh", name, "-c", "ps -eo comm").stdout.decode())
        screen.type("\x03")
        screen.wait_for("$ ")
        screen.type("\x1d")
        screen.wait_for(f"torpor sh {name} --attach 0")
        assert screen.wait_for_the_end() == 130
    assert torpor(environment, "sleep", name).returncode == 0
    assert not server.holds(name)
    with terminal(environment, "sh", name, "--attach", "0") as screen:
        screen.wait_for("30 70")  # all that it had shown is shown again
        screen.type("echo it is $colour\r")
        screen.wait_for("it is green")
        screen.type("exit 5\r")
        assert screen.wait_for_the_end() == 5
