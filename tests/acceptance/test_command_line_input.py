"""`input()` and `getpass()` at `torpor run` and `torpor repl`, on a real server: typed, and from pipes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import ServerProcess
from tests.support.terminal import COMMAND, PATIENCE_SECONDS, terminal

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ASKS = """\
import getpass
name = input('Name? ')
key = getpass.getpass('Key? ')
print('hello', name)
len(key)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def environment(server: ServerProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
    own = {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, "XDG_STATE_HOME": str(tmp_path / "state")}
    return kept | own | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}


@pytest.fixture
def machine(server: ServerProcess) -> Iterator[torpor.Machine]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client.new_machine()


def run(environment: dict[str, str], line: str, machine: torpor.Machine) -> subprocess.CompletedProcess[str]:
    """What a shell does with a line in which `torpor run` runs on this machine."""
    return subprocess.run(
        ["bash", "-c", line],
        env={**environment, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}", "TORPOR_MACHINE": machine.name},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_a_script_asks_at_the_terminal(environment: dict[str, str], machine: torpor.Machine, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ASKS)
    with terminal(environment, "run", "-m", machine.name, "-t", "60", str(tmp_path / "script.py")) as screen:
        screen.wait_for("Name? ")
        screen.type("Ada\r")
        screen.wait_for("Key? ")
        screen.wait_until(lambda: not screen.is_echoing)
        screen.type("s3cret\r")
        screen.wait_for("hello Ada\r\n6\r\n")
        assert screen.wait_for_the_end() == 0
        assert screen.is_echoing
    assert "s3cret" not in screen.text
    assert machine.run("name").value == "'Ada'"


def test_ctrl_c_and_ctrl_d_at_a_question(environment: dict[str, str], machine: torpor.Machine) -> None:
    with terminal(environment, "run", "-m", machine.name, "-t", "60", "-c", "a = 3; input('Go on? ')") as screen:
        screen.wait_for("Go on? ")
        screen.type("\x03")
        screen.wait_for("KeyboardInterrupt")
        assert screen.wait_for_the_end() == 130
    with terminal(environment, "run", "-m", machine.name, "-t", "60", "-c", "input('Go on? ')") as screen:
        screen.wait_for("Go on? ")
        screen.type("\x04")
        screen.wait_for("EOFError")
        assert screen.wait_for_the_end() == 1
    assert machine.run("a").value == "3"


def test_code_whose_time_is_over_asks_no_longer(environment: dict[str, str], machine: torpor.Machine) -> None:
    with terminal(environment, "run", "-m", machine.name, "-t", "1", "-c", "input('Go on? ')") as screen:
        screen.wait_for("Go on? ")
        screen.wait_for("[its time was over before it had an answer; `--timeout 600` gives it more]")
        assert screen.wait_for_the_end() == 1


def test_what_is_piped_in_is_read_by_the_code_and_by_what_it_starts(
    environment: dict[str, str], machine: torpor.Machine, tmp_path: Path
) -> None:
    assert run(environment, "echo Ada | torpor run -c 'input()'", machine).stdout == "'Ada'\n"
    assert machine.instruction(0).stdin == "Ada\n"
    (tmp_path / "numbers").write_text("1\n2\n39\n")
    summed = run(environment, f"torpor run -c 'import sys; sum(map(int, sys.stdin))' < {tmp_path / 'numbers'}", machine)
    assert summed.stdout == "42\n"
    assert run(environment, "printf 'b\\na\\n' | torpor run -c '!sort'", machine).stdout == "a\nb\n"
    script = tmp_path / "script.py"
    script.write_text(ASKS)
    assert run(environment, f"printf 'Ada\\nkey\\n' | torpor run {script}", machine).stdout == "Name? hello Ada\n3\n"


def test_a_pipe_that_takes_its_time_and_one_that_never_ends(
    environment: dict[str, str], machine: torpor.Machine
) -> None:
    slow = run(environment, "(echo 1; sleep 1; echo 2) | torpor run -c '[input(), input()]'", machine)
    assert slow.stdout == "['1', '2']\n"
    assert run(environment, "yes | torpor run -c '[input(), input()]'", machine).stdout == "['y', 'y']\n"
    big = "head -c 3000000 /dev/zero | tr '\\0' x | torpor run -t 60 -c 'import sys; len(sys.stdin.read())'"
    assert run(environment, big, machine).stdout == "3000000\n"


@pytest.mark.parametrize("line", ["echo 'input()' | torpor run", "echo 'input()' | torpor run -"])
def test_code_that_comes_from_standard_input_has_nothing_to_read(
    environment: dict[str, str], machine: torpor.Machine, line: str
) -> None:
    done = run(environment, line, machine)
    assert done.returncode == 1
    assert "EOFError: input() got no answer" in done.stderr
    assert "File" in done.stderr


def test_the_prompt_asks_too(environment: dict[str, str], machine: torpor.Machine) -> None:
    with terminal(environment, "repl", machine.name, "--timeout", "60") as screen:
        screen.wait_for_prompt()
        screen.type("name = input('Na' 'me? ')\r")
        screen.wait_for("Name? ")  # which is not in the echo of the code
        screen.say("Ada\r")
        screen.say("print('it is', name)\r", "it is Ada")
        screen.type("import getpass; key = getpass.getpass()\r")
        screen.wait_for("Password: ")
        screen.wait_until(lambda: not screen.is_echoing)
        screen.say("s3cret\r")
        screen.say("len(key)\r", "6\r\n")
        assert "s3cret" not in screen.text
        screen.type("input('En' 'd? ')\r")
        screen.wait_for("End? ")
        screen.say("\x04", "EOFError")
        screen.type("input('St' 'op? ')\r")
        screen.wait_for("Stop? ")
        screen.say("\x03", "KeyboardInterrupt")
        screen.type("import sys; print('read', 'on'); sys.stdin.readline()\r")
        screen.wait_for("read on\r\n")
        screen.say("a line\r", "'a line")
