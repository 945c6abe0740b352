"""Hostile instructions, through the public API: each ends in a clear result, and the next one is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Case:
    """An instruction, and what its answer must say (a pattern searched in error, value and output together)."""

    code: str
    says: str
    timeout_seconds: float = 60
    error: bool = True


TIMED_OUT = "Timed out"
DIED = r"ended|died|killed|exit|memory|lost|gone"

CASES = {
    "a syntax error": Case("a = = 3", "SyntaxError"),
    "an error in __repr__": Case("class C:\n  def __repr__(self): 1/0\nC()", "ZeroDivisionError"),
    "a repr that loops": Case("class C:\n  def __repr__(self):\n    while True: pass\nC()", TIMED_OUT, 1),
    "a repr of 300 MB": Case("'x' * 300_000_000", "xxx", error=False),
    "binary on stdout": Case("import os; os.write(1, bytes(range(256))); print('after')", "after", error=False),
    "lone surrogates on stdout": Case("print('\\ud800'); print('after')", "after", error=False),
    "100 MB of output": Case("for _ in range(1000): print('x' * 100_000)", "xxx", 120, error=False),
    "an endless loop": Case("while True: pass", TIMED_OUT, 1),
    "an endless sleep": Case("import time; time.sleep(10**9)", TIMED_OUT, 1),
    "one endless computation in C": Case("x = 10**10**8", TIMED_OUT, 1),
    "an endless await": Case("import asyncio; await asyncio.Event().wait()", TIMED_OUT, 1),
    "SIGINT ignored": Case(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", TIMED_OUT, 1
    ),
    "KeyboardInterrupt swallowed": Case(
        "while True:\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass", TIMED_OUT, 1
    ),
    "sys.exit": Case("import sys; sys.exit(3)", "SystemExit"),
    "os._exit": Case("import os; os._exit(1)", DIED),
    "kill -9 of itself": Case("import os; os.kill(os.getpid(), 9)", DIED),
    "kill -9 of everything": Case("import os; os.kill(-1, 9)", "No such process|" + DIED),
    "SIGSTOP of itself": Case("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", f"{TIMED_OUT}|None|^$", 1),
    "a segfault": Case("import ctypes; ctypes.string_at(0)", DIED),
    "memory by one list": Case("x = [0] * (10**9)", "MemoryError|" + DIED),
    "memory by many objects": Case("x = []\nwhile True: x.append(bytearray(10**6))", "MemoryError|" + DIED),
    "memory by memfd": Case(
        "import os\nfd = os.memfd_create('m')\nb = b'x' * 2**20\nwhile True: os.write(fd, b)", "Error|" + DIED
    ),
    "memory by files in /tmp": Case(
        "b = b'x' * 2**20\nwith open('/tmp/f', 'wb') as f:\n  while True: f.write(b)", "No space|Error|" + DIED
    ),
    "memory by children": Case(
        "import os, time\nfor _ in range(8):\n  if os.fork() == 0:\n    x = bytearray(300 * 2**20)\n"
        "    for i in range(0, len(x), 4096): x[i] = 1\n    time.sleep(30)\n    os._exit(0)\ntime.sleep(30)",
        f"{TIMED_OUT}|" + DIED,
        8,
    ),
    "a fork bomb": Case("import os\nwhile True: os.fork()", f"{TIMED_OUT}|Error|" + DIED, 5),
    "threads without end": Case(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(100,)).start()",
        f"{TIMED_OUT}|Error|" + DIED,
        5,
    ),
    "os.fork at top level": Case("import os; pid = os.fork()", "", error=False),
    "filling the disk": Case(
        "b = b'x' * 2**20\nwith open('/home/user/f', 'wb') as f:\n  while True: f.write(b)", "No space|Error|" + DIED
    ),
    "closing all fds": Case("import os; os.closerange(0, 4096)", ".*", error=False),
    "sys.modules cleared": Case("import sys; sys.modules.clear()", ".*", error=False),
    "sys.stdout replaced": Case("import sys; sys.stdout = None; print = None", ".*", error=False),
    "builtins.len replaced": Case("import builtins; builtins.len = None", ".*", error=False),
    "a trace function that raises": Case(
        "import sys\ndef t(*a): raise ValueError('t')\nsys.settrace(t)\n(lambda: 1)()", ".*", error=False
    ),
    "garbage on every fd": Case(
        "import os\nfor fd in range(256):\n  try: os.write(fd, b'\\xff\\x00garbage' * 100)\n  except OSError: pass",
        ".*",
        error=False,
    ),
    "a socket outward": Case("import socket; socket.create_connection(('192.0.2.1', 80), 5)", "network"),
    "input without an answer": Case("input('name? ')", "EOFError"),
}


def run(server: ServerProcess, machine: str, code: str, timeout_seconds: float = 60) -> dict[str, Any]:
    """One instruction; the whole answer."""
    answer = httpx2.post(
        f"{server.url}/v1/machine/{machine}/run",
        json={"code": code, "timeout_seconds": timeout_seconds},
        headers={"Authorization": f"Bearer {server.api_key}"},
        timeout=240,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def new_machine(server: ServerProcess) -> str:
    answer = httpx2.post(
        f"{server.url}/v1/machine/new", headers={"Authorization": f"Bearer {server.api_key}"}, timeout=60
    )
    return str(answer.json()["machine_name"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all of them."""
    with ServerProcess(tmp_path_factory.mktemp("hostile")) as process:
        yield process


@pytest.fixture(scope="module")
def bystander(server: ServerProcess) -> str:
    """A machine of somebody else's, which must not notice any of it."""
    name = new_machine(server)
    run(server, name, "mine = 7")
    return name


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_instruction_ends_clearly_and_the_machine_goes_on(
    server: ServerProcess, bystander: str, name: str
) -> None:
    case = CASES[name]
    machine = new_machine(server)
    run(server, machine, "keep = 41")

    answer = run(server, machine, case.code, case.timeout_seconds)

    result = answer["result"]
    said = "\n".join(
        [str(result.get("error")), str(result.get("value"))[:1000]]
        + [str(event.get("text", event.get("data", "")))[:1000] for event in answer["events"]]
    )
    if case.error:
        assert "error" in result, answer
    assert re.search(case.says, said, re.IGNORECASE), said[:2000]
    assert run(server, machine, "keep + 1")["result"]["value"] == "42"
    assert run(server, bystander, "mine")["result"]["value"] == "7"


def test_a_new_machine_and_a_new_fork_outlive_instructions_that_end_their_processes_in_a_row(
    server: ServerProcess,
) -> None:
    with server.client() as http:

        def run(machine: str, code: str) -> dict[str, Any]:
            answer = http.post(f"/v1/machine/{machine}/run", json={"code": code, "queue": True})
            assert answer.status_code == 200, answer.text
            result: dict[str, Any] = answer.json()["result"]
            return result

        def end_ten_times(machine: str) -> None:
            for _ in range(10):
                assert "exit status 1" in run(machine, "import os; os._exit(1)")["error"]

        machine = http.post("/v1/machine/new", json={}).json()["machine_name"]
        end_ten_times(machine)
        run(machine, "a = 3")
        fork = http.post(f"/v1/machine/{machine}/fork", json={}).json()["machines"][0]
        end_ten_times(fork)
        end_ten_times(machine)
        assert (run(fork, "a + 5")["value"], run(machine, "a + 6")["value"]) == ("8", "9")
