"""Packages in real machines without a network: installed once they are acknowledged, whatever dies then."""

import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.package_index import IndexServer
from tests.support.remote_commands import Commands
from tests.support.remote_machine import Machine
from tests.support.server import ServerProcess

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
