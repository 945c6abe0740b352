"""The first start of a server, and the ways in which it stops."""

from __future__ import annotations

import signal
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.server import ServerProcess

pytestmark = pytest.mark.acceptance


def run(server: ServerProcess, machine: str, code: str, key: str | None = None) -> dict[str, Any]:
    """One instruction; the whole answer."""
    answer = httpx2.post(
        f"{server.url}/v1/machine/{machine}/run",
        json={"code": code},
        headers={"Authorization": f"Bearer {key or server.api_key}"},
        timeout=120,
    )
    assert answer.is_success, answer.text
    return dict(answer.json())


def new_machine(server: ServerProcess, key: str | None = None) -> str:
    headers = {"Authorization": f"Bearer {key or server.api_key}"}
    answer = httpx2.post(f"{server.url}/v1/machine/new", headers=headers, timeout=60)
    assert answer.is_success, answer.text
    return str(answer.json()["machine_name"])


def test_the_first_start_makes_a_key_and_saves_it_and_the_second_keeps_it(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, bootstrap_api_key="") as server:
        saved = tomllib.loads((tmp_path / "config" / "torpor" / "config.toml").read_text())
        machine = new_machine(server, saved["api_key"])
        run(server, machine, "a = 3", saved["api_key"])
        server.restart()
        value = run(server, machine, "a + 5", saved["api_key"])["result"]["value"]

        assert saved["url"] == server.url
        assert value == "8"
        assert f"curl {server.url}/v1/run" in server.log
        assert (tmp_path / "config" / "torpor" / "config.toml").stat().st_mode & 0o777 == 0o600
        assert server.data_dir.stat().st_mode & 0o777 == 0o700
        assert server.log.count(saved["api_key"]) == 1


def test_a_second_signal_ends_it_anyway_with_nothing_acknowledged_lost(server: ServerProcess) -> None:
    machine = new_machine(server)
    run(server, machine, "a = 3")
    server.send(signal.SIGTERM)
    server.send(signal.SIGINT)
    status = server.wait()
    left = server.sandboxes()
    server.start()

    assert status in (0, 1)
    assert left == []
    assert run(server, machine, "a + 5")["result"]["value"] == "8"


def test_a_long_poll_ends_when_the_server_stops_and_its_instruction_goes_on(server: ServerProcess) -> None:
    machine = new_machine(server)
    headers = {"Authorization": f"Bearer {server.api_key}"}
    path = f"{server.url}/v1/machine/{machine}/exec"
    code = "import time\nprint('begun')\nwhile True: time.sleep(0.1)"
    httpx2.post(path, json={"instruction": {"code": code, "timeout_seconds": 300}}, headers=headers, timeout=60)
    with httpx2.stream("GET", f"{path}/0/stream-result", headers=headers, timeout=120) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        server.send(signal.SIGTERM)
        rest = list(lines)
    assert server.wait() == 0
    server.start()
    interrupt = f"{server.url}/v1/machine/{machine}/interrupt"
    while not httpx2.post(interrupt, headers=headers, timeout=60).json()["interrupted"]:
        time.sleep(0.1)  # it is on its way back
    result = httpx2.get(f"{path}/0/result", headers=headers, timeout=120).json()["result"]

    assert "begun" in first
    assert not any('"result"' in line for line in rest)
    assert result["error"].startswith("KeyboardInterrupt")
