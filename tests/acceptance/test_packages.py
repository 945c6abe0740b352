"""Packages in real machines without a network: installed once they are acknowledged, whatever dies then."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.package_index import IndexServer
from tests.support.remote_commands import Commands
from tests.support.remote_machine import Machine, until
from tests.support.server import ServerProcess

import torpor

pytestmark = pytest.mark.acceptance

INSTALL = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'install', *{}]).returncode"


@pytest.fixture(scope="module")
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        server.add("tidy", "1.2", ("broom>=2",))
        server.add("broom", "2.1")
        server.add("big", "1.0")
        server.add("secret", "1.0")
        server.add_source("sourceonly", "1.0")
        yield server


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory, index: IndexServer) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    allowed = "tidy,broom,grown,later,sourceonly,absent,again"
    with ServerProcess(folder, package_index=index.address, package_allow=allowed) as process:
        yield process


@pytest.fixture
def server(only_server: ServerProcess) -> ServerProcess:
    if not only_server.running:
        only_server.start()
    return only_server


@pytest.fixture
def machine(server: ServerProcess) -> Iterator[Machine]:
    made = Machine(server)
    yield made
    with server.client() as client:
        assert client.delete(f"/v1/machine/{made.name}").is_success


@pytest.mark.parametrize("code", ["!pip install tidy", "%pip install tidy", INSTALL.format(["tidy"])])
def test_pip_in_a_cell_installs_what_is_imported_in_the_same_cell(machine: Machine, code: str) -> None:
    code = code.removesuffix(".returncode") + "\nimport tidy, broom\n(tidy.VERSION, broom.VERSION)"
    assert machine.run(code) == "('1.2', '2.1')"
    assert machine.run("import os; os.listdir(os.path.expanduser('~/.cache/torpor'))") == "[]"


def test_pip_in_a_command_installs(server: ServerProcess, machine: Machine) -> None:
    commands = Commands(server, machine.name)
    done = commands.run("pip install tidy && python3 -c 'import tidy, broom; print(broom.VERSION)'", timeout_seconds=60)
    assert done["exit_code"] == 0, done
    assert machine.run("import tidy; tidy.VERSION") == "'1.2'"


@pytest.fixture(params=[ServerProcess.kill, ServerProcess.kill_all], ids=["server", "server and sandboxes"])
def crash(request: pytest.FixtureRequest, server: ServerProcess) -> Callable[[], None]:
    def kill_and_start() -> None:
        request.param(server)
        server.start()

    return kill_and_start


def test_what_was_installed_is_there_after_sleep_and_death_though_the_index_is_away(
    crash: Callable[[], None], server: ServerProcess, machine: Machine, index: IndexServer
) -> None:
    index.broken = False
    machine.run("!pip install tidy")
    index.broken = True
    try:
        crash()
        assert machine.run("import tidy, broom; broom.VERSION") == "'2.1'"
        machine.sleep()
        assert machine.run("import tidy; tidy.VERSION") == "'1.2'"
    finally:
        index.broken = False


def test_a_recovery_chooses_the_versions_that_were_chosen_first(
    server: ServerProcess, machine: Machine, index: IndexServer
) -> None:
    index.add("grown", "1.0")
    machine.run("!pip install grown")
    assert Commands(server, machine.name).run("pip install later", timeout_seconds=60)["exit_code"] == 1
    index.add("grown", "1.1")
    index.add("later", "1.0")
    server.kill_all()
    server.start()
    assert machine.run("import grown; grown.VERSION") == "'1.0'"
    assert machine.run("import importlib.util; importlib.util.find_spec('later')") is None
    machine.run("!pip install -U grown later")
    assert (
        Commands(server, machine.name).run("python3 -c 'import grown, later; print(grown.VERSION)'")["stdout"]
        == "1.1\n"
    )


def test_an_install_that_was_cut_off_is_done_once_its_server_is_back(
    crash: Callable[[], None], server: ServerProcess, machine: Machine, index: IndexServer
) -> None:
    asked = len(index.asked)
    index.delay_seconds = 3.0
    try:
        seq = machine.begin("!pip install tidy\nimport tidy, broom\n(tidy.VERSION, broom.VERSION)")
        until(lambda: len(index.asked) > asked, "the index to be asked")
    finally:
        index.delay_seconds = 0.0
    crash()
    assert machine.result(seq)["value"] == "('1.2', '2.1')"


def test_an_install_goes_on_that_was_cut_off_when_its_wheels_had_come(
    crash: Callable[[], None], server: ServerProcess, machine: Machine, index: IndexServer
) -> None:
    given = server.log.count("Packages are handed in")
    code = "import time\n!pip install tidy\ntime.sleep(1)\nimport tidy, broom\n(tidy.VERSION, broom.VERSION)"
    seq = machine.begin(code)
    until(lambda: server.log.count("Packages are handed in") > given, "wheels to be handed in")
    crash()
    assert machine.result(seq)["value"] == "('1.2', '2.1')"


def test_an_ask_outlives_a_stop_in_the_middle_of_its_cell(
    server: ServerProcess, machine: Machine, index: IndexServer
) -> None:
    asked = len(index.asked)
    index.delay_seconds = 5.0
    try:
        seq = machine.begin("began = 1\n!pip install tidy\nimport tidy\ntidy.VERSION")
        until(lambda: len(index.asked) > asked, "the index to be asked")
        server.restart()
    finally:
        index.delay_seconds = 0.0
    assert machine.result(seq)["value"] == "'1.2'"
    assert "ran_again" not in str(machine.detail()["notices"])


def test_a_rollback_takes_an_install_back_and_a_fork_has_it(server: ServerProcess, machine: Machine) -> None:
    before = machine.begin("1")
    machine.result(before)
    machine.run("!pip install tidy")
    fork = Machine(server, machine.post(f"{machine.name}/fork")["machines"][0])
    machine.post(f"{machine.name}/rollback", {"to": {"seq": before}})
    assert machine.run("import importlib.util; importlib.util.find_spec('tidy')") is None
    assert fork.run("import tidy; tidy.VERSION") == "'1.2'"


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("secret", "does not allow the package secret"),
        ("absent", "has no package absent"),
        ("sourceonly", "only source code, which is not built here"),
        ("'tidy>=7'", "There is no version >=7 of tidy"),
        ("git+https://example.com/tidy", "names no package"),
        ("'tidy @ https://example.com/tidy.whl'", "leads to an address"),
    ],
)
def test_a_refusal_says_why(server: ServerProcess, machine: Machine, wanted: str, sentence: str) -> None:
    done = Commands(server, machine.name).run(f"pip install {wanted}", timeout_seconds=60)
    assert done["exit_code"] == 1
    assert sentence in done["stderr"]


def test_what_is_there_already_is_not_asked_for(server: ServerProcess, machine: Machine) -> None:
    done = Commands(server, machine.name).run("pip install numpy", timeout_seconds=60)
    assert done["exit_code"] == 0, done


def test_pip_in_an_environment_of_its_own_installs_there(server: ServerProcess, machine: Machine) -> None:
    made = "python3 -m venv --without-pip --system-site-packages /tmp/own && /tmp/own/bin/python -m pip install tidy"
    done = Commands(server, machine.name).run(
        f"{made} && /tmp/own/bin/python -c 'import tidy; print(tidy.__file__)'", timeout_seconds=120
    )
    assert done["stdout"].splitlines()[-1].startswith("/tmp/own/lib"), done


def test_hostile_asks_are_bounded_and_disturb_nobody(server: ServerProcess, machine: Machine) -> None:
    code = """
import contextlib, json, os, socket
address = '\\0' + open('/run/torpor/packages').read()
held = []
for n in range(40):
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(BlockingIOError):
        connection.connect(address)
    held.append(connection)
heard = []
asks = [{'session': 0, 'requirements': None}, {'session': 0, 'requirements': ['../../x'] * 3, 'installed': {}}]
asks = [json.dumps(each).encode() + b'\\n' for each in asks]
for text in (b'{}\\n', b'null\\n', b'[' * 5000 + b'\\n', b'x' * 300_000, *asks):
    for connection in held:
        connection.close()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    connection.settimeout(20)
    held = [connection]
    try:
        connection.sendall(text)
        heard.append(connection.makefile().read())
    except OSError as error:
        heard.append(str(error))
len(heard), [text for text in heard if 'refused' not in text and 'Broken' not in text and 'reset' not in text]
"""
    assert machine.run(code) == "(6, [])"
    assert machine.run("!pip install tidy\nimport tidy; tidy.VERSION") == "'1.2'"


def test_without_an_index_pip_says_what_the_operator_sets(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        done = Commands(server, Machine(server).name).run("pip install tidy", timeout_seconds=60)
        assert done["exit_code"] == 1
        assert "TORPOR_PACKAGE_INDEX" in done["stderr"]
        assert "This machine has no network" in done["stderr"]
        assert "pandas" in done["stderr"]


def test_packages_are_installed_over_http(server: ServerProcess, machine: Machine) -> None:
    done = machine.post(f"{machine.name}/packages", {"packages": ["tidy>=1"]})
    assert sorted(each["name"] + each["version"] for each in done["installed"]) == ["broom2.1", "tidy1.2"]
    assert machine.run("import tidy; tidy.VERSION") == "'1.2'"
    assert machine.post(f"{machine.name}/packages", {"packages": ["tidy"]})["installed"] == []
    with server.client() as client:
        refused = client.post(f"/v1/machine/{machine.name}/packages", json={"packages": ["tidy", "secret"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "packages_not_installed")
    assert "does not allow the package secret" in refused.json()["message"]


def test_the_sdk_and_the_command_line_install(server: ServerProcess, machine: Machine) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        mine = client.machine(machine.name, create=False)
        assert [each.name for each in mine.packages.install("broom").installed] == ["broom"]
        with pytest.raises(torpor.PackagesNotInstalled, match="no package absent"):
            mine.packages.install(["absent"])
    installing = [str(Path(sys.executable).with_name("torpor")), "install", machine.name]
    said = subprocess.run(
        [*installing, "tidy"], env=server.environment(), capture_output=True, text=True, timeout=120, check=True
    )
    assert said.stdout == "tidy 1.2\n"
    refused = subprocess.run(
        [*installing, "secret"], env=server.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode == 3
    assert "does not allow the package secret" in refused.stderr
