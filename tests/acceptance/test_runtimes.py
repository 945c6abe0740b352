"""Runtimes over the years: several side by side, from the store on a new host, replaced, quarantined, removed."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.server import ServerProcess
from tests.support.small_runtime import install_small_runtime

from torpor_snapshotter import runtimes
from torpor_snapshotter.runtime import Runtime

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

NUMPY = "import importlib.util; importlib.util.find_spec('numpy') is not None"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that is not started, without a runtime."""
    process = ServerProcess(tmp_path, own_runtimes=True)
    with process.unstarted():
        yield process


@pytest.fixture
def small(server: ServerProcess) -> Runtime:
    """A runtime without NumPy; the only one that the server has."""
    return install_small_runtime(server.data_dir)


def call(server: ServerProcess, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
    """Ask the server."""
    with server.client() as client:
        return client.request(method, f"/v1/machine/{path}", json=body)


def new_machine(server: ServerProcess) -> str:
    """The name of a new machine."""
    name: str = call(server, "POST", "new", {}).json()["machine_name"]
    return name


def value(server: ServerProcess, machine: str, code: str) -> str | None:
    """The value of an instruction."""
    answer = call(server, "POST", f"{machine}/run", {"code": code, "timeout_seconds": 120})
    assert answer.is_success, answer.text
    result = answer.json()["result"]
    assert "error" not in result, result
    found: str | None = result["value"]
    return found


def asleep_with_a_3(server: ServerProcess) -> str:
    """The name of a machine that sleeps and has a variable."""
    machine = new_machine(server)
    value(server, machine, "a = 3")
    assert call(server, "POST", f"{machine}/sleep").is_success
    return machine


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, with a limit that only a bug reaches."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.1)


def test_machines_wake_on_the_runtime_that_they_slept_on_and_it_stays_as_long_as_they_need_it(
    server: ServerProcess, small: Runtime
) -> None:
    server.start()
    old = asleep_with_a_3(server)
    server.stop()
    server.link_runtimes()
    server.start()
    new = new_machine(server)

    assert value(server, new, NUMPY) == "True"
    assert value(server, old, NUMPY) == "False"
    assert value(server, old, "a + 5") == "8"
    server.stop()

    refused = server.torpor("runtime", "rm", small.series)
    assert refused.returncode == 1
    assert old in refused.stderr
    assert new not in refused.stderr
    server.start()
    assert call(server, "DELETE", old).is_success
    server.stop()
    removed = server.torpor("runtime", "rm", small.series)
    assert removed.returncode == 0, removed.stderr
    assert not small.rootfs.exists()
    assert small.series not in server.torpor("runtime", "list").stdout


def test_a_new_host_gets_from_the_store_what_old_snapshots_need(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, own_runtimes=True, keep_runtimes=True)
    small = install_small_runtime(server.data_dir)
    with server.unstarted():
        server.start()
        machine = asleep_with_a_3(server)
        until(lambda: "A runtime was put into the store" in server.log, "the runtime to be in the store")
        server.stop()
        for folder in ("runtimes", "images", "templates"):
            shutil.rmtree(server.data_dir / folder)
        server.start()
        assert value(server, machine, "a + 5") == "8"
        assert call(server, "POST", f"{machine}/sleep").is_success
        server.stop()
        assert server.torpor("fsck").returncode == 0

        # Then there is a newer one, and the old one's part in the store is gone for a while.
        shutil.rmtree(server.data_dir / "runtimes" / small.series)
        parts = server.data_dir / "store" / "runtimes" / "parts"
        parts.rename(tmp_path / "parts")
        server.link_runtimes()
        server.start()
        seq = call(server, "POST", f"{machine}/exec", {"instruction": {"code": "a + 6"}}).json()["instruction_seq"]
        until(lambda: notices(server, machine), "the notice")
        [notice] = notices(server, machine)
        assert notice["code"] == "runtime_missing"
        assert small.series in notice["message"]
        (tmp_path / "parts").rename(parts)
        answer = call(server, "GET", f"{machine}/exec/{seq}/result")
        assert answer.json()["result"]["value"] == "9"
        assert notices(server, machine) == []


def notices(server: ServerProcess, machine: str) -> list[dict[str, Any]]:
    """What its users are to be told."""
    found: list[dict[str, Any]] = call(server, "GET", machine).json()["notices"]
    return found


def test_machines_of_a_quarantined_runtime_run_nothing_until_it_is_lifted_and_can_be_exported(
    server: ServerProcess,
) -> None:
    server.link_runtimes()
    series = runtimes.current(server.data_dir).series
    server.start()
    machine = asleep_with_a_3(server)
    quarantined = server.torpor("runtime", "quarantine", series, "--reason", "a hole was found")
    assert quarantined.returncode == 0, quarantined.stderr

    for refused in (
        call(server, "POST", f"{machine}/run", {"code": "a"}),
        call(server, "POST", f"{machine}/wake"),
        call(server, "POST", f"{new_machine(server)}/run", {"code": "1"}),
    ):
        assert refused.status_code == 409
        assert refused.json()["code"] == "runtime_quarantined"
        assert "a hole was found" in refused.json()["message"]
    assert call(server, "GET", f"{machine}/exec/0").json()["code"] == "a = 3"
    assert "quarantined (a hole was found)" in server.torpor("runtime", "list").stdout
    exported = call(server, "POST", f"{machine}/recover", {"how": "export"})
    assert exported.is_success, exported.text
    with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
        state = archive.extractfile("state.tar")
        assert state is not None
        with tarfile.open(fileobj=state) as variables:
            assert "variables/a.pickle" in variables.getnames()

    lifted = server.torpor("runtime", "quarantine", series, "--lift")
    assert lifted.returncode == 0, lifted.stderr
    assert value(server, machine, "a + 5") == "8"


def test_a_rebuilt_binary_is_admitted_only_if_golden_snapshots_wake_on_it(
    server: ServerProcess, small: Runtime, tmp_path: Path
) -> None:
    server.start()
    machine = asleep_with_a_3(server)
    server.stop()
    rebuilt, broken = tmp_path / "rebuilt", tmp_path / "broken"
    rebuilt.write_bytes(small.runsc.read_bytes() + b"rebuilt")
    broken.write_text(f'#!/bin/sh\ncase "$*" in *restore*) exit 1;; esac\nexec {small.runsc} "$@"\n')
    for binary in (rebuilt, broken):
        binary.chmod(0o755)

    refused = server.torpor("runtime", "admit", str(broken))
    assert refused.returncode == 1
    assert "is not admitted. Waking" in refused.stderr
    assert small.runsc.stat().st_size > broken.stat().st_size

    admitted = server.torpor("runtime", "admit", str(rebuilt), "--series", small.series)
    assert admitted.returncode == 0, admitted.stderr
    assert small.runsc.read_bytes() == rebuilt.read_bytes()
    server.start()
    assert value(server, machine, "a + 5") == "8"
    assert os.access(small.runsc, os.X_OK)
