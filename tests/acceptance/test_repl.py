"""`torpor repl` and its neighbours on a real terminal, with a real server and real machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest
from tests.support.server import ServerProcess
from tests.support.terminal import COMMAND, PATIENCE_SECONDS, terminal

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

COUNTING = "for i in range(40):\rprint('number', i, flush=True); time.sleep(0.25)\r\r"
HOSTILE = (
    "import sys; _ = sys.stdout.write("
    "'\\x1b[31mred\\x1b[0m\\x1b]52;c;cm0=\\x07\\x1bP$qm\\x1b\\\\ \\x9b6n 50%\\r100%\\n')"
)


@pytest.fixture
def environment(server: ServerProcess, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "TERM": "xterm-kitty",
        "TORPOR_URL": server.url,
        "TORPOR_API_KEY": server.api_key,
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }


def torpor(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_a_server_that_restarts_in_the_middle_of_a_loop_costs_no_line_and_repeats_none(
    environment: dict[str, str], server: ServerProcess
) -> None:
    with terminal(environment, "repl", "--timeout", "120") as screen:
        screen.wait_for_prompt()
        screen.say("import time\r")
        screen.type(COUNTING)
        screen.wait_for("number 3")
        server.stop()
        restarting = threading.Thread(target=server.start, name="restart")
        screen.wait_for("[the connection was lost; reconnecting …]")
        restarting.start()
        try:
            screen.wait_for("[connected again]")
            screen.wait_for("number 39")
        finally:
            restarting.join()
        screen.wait_for_prompt()
        assert re.findall(r"^number (\d+)", screen.text.replace("\r", ""), re.MULTILINE) == [
            str(number) for number in range(40)
        ]
        screen.say("print('still', i)\r", "still 39")


def test_a_notebooks_ways_work_at_the_prompt(environment: dict[str, str]) -> None:
    with terminal(environment, "repl") as screen:
        screen.wait_for_prompt()
        screen.say("!echo shell $((40 + 2))\r", "shell 42")
        screen.say("%time print('magic', 6 * 7)\r", "magic 42")
        screen.say("import asyncio\r")
        screen.say("await asyncio.sleep(0, result=[4, 2])\r", "[4, 2]")
        screen.say("answer_to_everything = 42; print('set', answer_to_everything)\r", "set 42")
        screen.type("answer_to_ev")
        screen.wait_for("answer_to_ev")
        screen.type("\t")
        screen.wait_for("erything")
        screen.say(" - 2\r", "40\r\n")
        screen.say("import pandas as pd; pd.DataFrame({'a': [1, 20]})\r", "    a\r\n─────\r\n0   1\r\n1  20\r\n")
        screen.say("import time\r")
        screen.say("for i in range(3):\rprint(f'\\r{i} of 2', end='', flush=True); time.sleep(.1)\r\r", "2 of 2")
        assert b"\r0 of 2\r1 of 2\r2 of 2\r\n" in screen.raw
        screen.say("import matplotlib.pyplot as plt; plt.plot([1, 3, 2]); plt.show()\r")
        assert b"\x1b_Ga=T,f=100,q=2,m=1;iVBORw0KGgo" in screen.raw
        screen.say("1 / 0\r", "ZeroDivisionError: division by zero\r\n")
        assert b"\x1b[91mZeroDivisionError\x1b[39;49;00m" in screen.raw


def test_places_share_a_machines_history_and_its_forks_and_rollbacks(environment: dict[str, str]) -> None:
    name = torpor(environment, "new", "--name", "shared").stdout.strip()
    assert torpor(environment, "run", "-m", "shared", "-c", "value = 'from a script'").returncode == 0
    with terminal(environment, "repl", "shared") as screen:
        screen.wait_for_prompt()
        screen.say("value\r", "'from a script'")
        screen.say(":log\r", "value = 'from a script'")
        screen.say(":fork\r", "goes on from here, beside this one")
        screen.say("value = 'changed'\r")
        screen.say(":rollback 1\r", "Left behind: instruction 2.")
        screen.say("value\r", "'from a script'")
        screen.say(":undo\r", "goes on from generation")
        screen.say("value\r", "'changed'")
        screen.say(":sleep\r", "It is asleep")
        screen.say("value + '!'\r", "'changed!'")
        screen.type("\x04")
        screen.wait_for("The machine lives on. To come back: torpor repl shared")
        assert screen.wait_for_the_end() == 0
    codes = [line.split("\t")[2] for line in torpor(environment, "log", name).stdout.splitlines()]
    assert codes[:2] == ["value = 'from a script'", "value"]


def test_hostile_output_is_raw_in_a_pipe_and_harmless_on_a_terminal(environment: dict[str, str]) -> None:
    ran = torpor(environment, "run", "-c", HOSTILE)
    assert ran.stdout.splitlines() == ["\x1b[31mred\x1b[0m\x1b]52;c;cm0=\x07\x1bP$qm\x1b\\ \x9b6n 50%", "100%"]
    name = ran.stderr.split()[2].rstrip("]")
    for arguments in (("run", "-m", name, "-c", HOSTILE), ("output", name, "0"), ("log", name, "0")):
        with terminal(environment, *arguments) as screen:
            assert screen.wait_for_the_end() == 0
        assert b"\x1b[31mred\x1b[0m  50%\r100%\r\n" in screen.raw
        for harm in (b"\x1b]", b"\x1bP", "\x9b".encode()):
            assert harm not in screen.raw
    with terminal(environment, "log", name) as screen:
        assert screen.wait_for_the_end() == 0
        assert "import sys" in screen.text


def test_the_exit_status_is_the_codes_and_output_can_be_had_again(environment: dict[str, str]) -> None:
    name = torpor(environment, "new").stdout.strip()
    left = torpor(environment, "run", "-m", name, "-c", "import sys\nprint('leaving')\nsys.exit(4)")
    assert (left.returncode, left.stdout, left.stderr) == (4, "leaving\n", "")
    assert torpor(environment, "run", "-m", name, "-c", "sys.exit()").returncode == 0
    said = torpor(environment, "run", "-m", name, "-c", "sys.exit('no disk left')")
    assert (said.returncode, said.stderr) == (1, "no disk left\n")
    assert torpor(environment, "output", name, "0").stdout == "leaving\n"
    assert torpor(environment, "output", name, "0", "--follow").returncode == 4
    assert torpor(environment, "sync", name).stderr == f"All of {name} is stored.\n"
    events = [json.loads(line) for line in torpor(environment, "output", name, "0", "-f", "--json").stdout.splitlines()]
    assert [event["type"] for event in events] == ["stdout", "error", "result"]


def test_output_is_followed_while_it_comes(environment: dict[str, str]) -> None:
    name = torpor(environment, "new").stdout.strip()
    code = "import time\nprint('first', flush=True)\ntime.sleep(10**6)"
    with terminal(environment, "run", "-m", name, "-t", "600", "-c", code) as running:
        running.wait_for("first\r\n")
        with terminal(environment, "output", name, "0", "--follow") as following:
            following.wait_for("first\r\n")
            so_far = torpor(environment, "output", name)
            assert so_far.stdout == "first\n"
            assert "[instruction 0 is running" in so_far.stderr
            assert json.loads(torpor(environment, "interrupt", name, "1", "--json").stdout)["interrupted"] is False
            assert json.loads(torpor(environment, "interrupt", name, "0", "--json").stdout)["interrupted"] is True
            following.wait_for("KeyboardInterrupt")
            assert following.wait_for_the_end() == 1
        assert running.wait_for_the_end() == 1
