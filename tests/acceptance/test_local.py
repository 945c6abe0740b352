"""A server of one's own from Python, and its fixtures for pytest; it ends with the program, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import torpor
from torpor_api.data_dir import default_data_dir

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

pytest_plugins = ["pytester"]

SECONDS = 60.0
DATA_HOME = default_data_dir().parent


@pytest.fixture(autouse=True)
def _no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORPOR_URL", "TORPOR_API_KEY", "TORPOR_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def servers(data_dir: Path) -> list[psutil.Process]:
    """Processes that belong to a server of this folder: its sandboxes, its snapshotter."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and str(data_dir) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_machines_of_a_folder_are_there_again_in_the_next_server(tmp_path: Path) -> None:
    with torpor.local(tmp_path / "own", idle_seconds=5, keep_runtimes="false") as client:
        assert client.machine("analysis").run("a = 3").ok
        assert client.machine("analysis").detail().idle_seconds == 5
    assert servers(tmp_path / "own") == []
    with torpor.local(tmp_path / "own", keep_runtimes="false") as client:
        assert client.machine("analysis").run("a + 5").value == "8"


def test_without_a_folder_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with torpor.local(keep_runtimes="false") as client:
        assert client.run("1 + 1").value == "2"
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    assert servers(tmp_path) == []


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(torpor.TorporError, match="TORPOR_IDLE_SECONDS"), torpor.local(tmp_path, idle_seconds="soon"):
        pass


KILLED = """
import sys, time, torpor
with torpor.local(sys.argv[1] or None, keep_runtimes="false") as client:
    print(client.run("1 + 1").value, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("named", [True, False], ids=["its own folder", "a temporary folder"])
def test_a_program_that_is_killed_takes_its_server_with_it(tmp_path: Path, named: bool) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path) if named else ""],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "2\n"
    assert servers(tmp_path)
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    program.stdout.close()
    deadline = time.monotonic() + SECONDS
    while (servers(tmp_path) or (not named and list(tmp_path.iterdir()))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers(tmp_path) == []
    assert named or list(tmp_path.iterdir()) == []


async def test_a_server_of_ones_own_for_asyncio(tmp_path: Path) -> None:
    async with torpor.local(tmp_path, keep_runtimes="false") as client:
        assert isinstance(client, torpor.AsyncClient)
        assert (await client.machine("analysis").run("a = 3; a + 5")).value == "8"
    assert servers(tmp_path) == []


def test_without_the_server_s_distribution_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    mine = Path(torpor.__file__).parents[1]
    others = Path(psutil.__file__).parents[1]
    script = (
        "import sys, importlib.util\n"
        f"sys.path += [{str(mine)!r}, {str(others)!r}]\n"
        "assert importlib.util.find_spec('torpor_api') is None\n"
        "import torpor\n"
        "try: torpor.local().__enter__()\n"
        "except torpor.TorporError as error: print(error, error.hint)\n"
    )
    ran = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", script], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "The server is not installed here. Install the distribution `torpor-server` beside `torpor`.\n"


def test_fixtures_are_there_for_every_test_that_names_them(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(DATA_HOME))  # pytester has another home, where no runtime is built
    pytester.makepyfile(
        """
        def test_an_answer_is_kept(torpor_machine):
            torpor_machine.run("a = 3")
            assert torpor_machine.run("a + 5").value == "8"

        def test_each_has_a_machine_of_its_own(torpor_machine, torpor_client):
            assert not torpor_machine.run("a").ok
            assert len(torpor_client.machines()) == 1
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)
