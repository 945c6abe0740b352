"""The command `torpor` against a real server, the REPL through a real terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.server import ServerProcess
from tests.support.terminal import COMMAND, PATIENCE_SECONDS, terminal

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture
def environment(server: ServerProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
    own = {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, "XDG_STATE_HOME": str(tmp_path / "state")}
    return kept | own | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}


def torpor(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_a_machine_is_made_used_listed_and_deleted(environment: dict[str, str]) -> None:
    made = torpor(environment, "new", "--tag", "story=cli")
    name = made.stdout.strip()
    assert re.fullmatch(r"[A-Za-z0-9]{16}", name), made
    assert torpor(environment, "run", "-m", name, "-c", "a = 3").returncode == 0
    assert torpor(environment, "run", "-m", name, stdin="print('adding'); a + 5").stdout == "adding\n8\n"
    failed = torpor(environment, "run", "-m", name, "-c", "a / 0")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "ZeroDivisionError" in failed.stderr
    told = json.loads(torpor(environment, "run", "-m", name, "-c", "a", "--json").stdout)
    assert (told["value"], told["instruction_seq"]) == ("3", 3)
    assert torpor(environment, "ls", "-q", "--tag", "story=cli").stdout == f"{name}\n"
    assert torpor(environment, "ls").stdout.split("\t")[0] == name
    assert [line.split("\t")[2] for line in torpor(environment, "log", name).stdout.splitlines()][:1] == ["a = 3"]
    assert torpor(environment, "rm", name).returncode == 0
    gone = torpor(environment, "run", "-m", name, "-c", "a")
    assert gone.returncode == 3
    assert gone.stderr.startswith("torpor: No machine of this name")
    assert torpor(environment, "ls").stdout == ""


def test_a_conversation_keeps_its_variables_through_ctrl_c_and_another_server(
    environment: dict[str, str], server: ServerProcess
) -> None:
    with terminal(environment, "repl") as screen:
        screen.wait_for("Ctrl-D leaves")
        screen.wait_for_prompt()
        screen.say("a = 3; print('set', a)\r", "set 3")
        screen.say("for i in range(2):\rprint('line', i + a)\r\r", "line 4")
        screen.type("if a:\rprint('spinning', 1)\rwhile True: pass\r\r")
        screen.wait_for("spinning 1")
        screen.say("\x03", "KeyboardInterrupt")
        server.restart()
        screen.say("print('sum', a + 5)\r", "sum 8")
        screen.type("\x04")
        screen.wait_for("The machine lives on. To come back: torpor repl ")
        assert screen.wait_for_the_end() == 0
        name = screen.text.split("To come back: torpor repl ")[1].split()[0]
    assert torpor(environment, "run", "-m", name, "-c", "a").stdout == "3\n"


def test_ctrl_c_on_run_ends_the_code_and_keeps_the_machine(environment: dict[str, str]) -> None:
    name = torpor(environment, "new").stdout.strip()
    code = "import time\na = 3\nprint('on', flush=True)\ntime.sleep(10**6)"
    with subprocess.Popen(
        [COMMAND, "run", "-m", name, "-t", "600", "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "KeyboardInterrupt" in errors
    assert torpor(environment, "run", "-m", name, "-c", "a").stdout == "3\n"
