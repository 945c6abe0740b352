"""Every example of the SDK's docstrings, of the READMEs and of the pages for users does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.examples import Console, Documented, Runner, blocks, documented
from tests.support.package_index import IndexServer
from tests.support.server import ServerProcess

import torpor
import torpor.compat.e2b
import torpor.tools
import torpor.tools.mcp

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
MODULES = (torpor, torpor.tools, torpor.tools.mcp, torpor.compat.e2b)
EXAMPLES = [each for module in MODULES for each in documented(module) if each.has_example]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose first account has the name that `torpor serve` gives it, and that hands in packages."""
    with IndexServer() as index:
        for package, version in (("tidy", "1.2"), ("seaborn", "0.13.2"), ("polars", "1.36.1")):
            index.add(package, version)
        folder = tmp_path_factory.mktemp("examples")
        server = ServerProcess(folder, package_index=index.address, package_allow="*")
        server.account, server.api_key = "local", f"local.{server.api_key.partition('.')[2]}"
        with server:
            yield server


@pytest.fixture
def environment(server: ServerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Where the SDK and the command find the server by themselves; and a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORPOR_URL", server.url)
    monkeypatch.setenv("TORPOR_API_KEY", server.api_key)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return {**os.environ, "URL": server.url, "KEY": server.api_key, "COLUMNS": "120"}


@pytest.fixture(autouse=True)
def no_machines_of_others(server: ServerProcess) -> Iterator[None]:
    """Each example begins with an account without machines: names in them are often the same."""
    yield
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        for machine in client.machines():
            machine.delete()


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def names(environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What examples may use without saying where it is from: a client, and a new machine."""
    with torpor.Client() as client:
        public = {name: getattr(module, name) for module in MODULES[1:] for name in module.__all__}
        machine = client.new_machine()
        yield {**public, "torpor": torpor, "client": client, "machine": machine, "Path": Path}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_docstring_s_example_does_what_it_says(example: Documented, runner: Runner, names: dict[str, Any]) -> None:
    if not example.asynchronous:
        runner.check_doctest(example.text, names)
        return
    client = torpor.AsyncClient()
    try:
        machine = client.machine(names["machine"].name)
        runner.check_doctest(example.text, {**names, "client": client, "machine": machine})
    finally:
        runner.loop.run_until_complete(client.close())


@pytest.mark.parametrize(
    "page",
    [
        "sdk/README.md",
        "docs/quickstart.md",
        "docs/guides/e2b.md",
        "docs/guides/packages.md",
        "docs/guides/tools.md",
        "docs/recipes/long-training.md",
        "docs/recipes/many-ideas.md",
    ],
)
def test_a_page_s_programs_do_what_they_say(page: str, runner: Runner, names: dict[str, Any]) -> None:
    programs = [block for block in blocks(ROOT / page) if block.language == "python"]
    assert programs
    shared = {"torpor": torpor}
    for program in programs:
        runner.check(program.text, shared)


def test_the_quickstart_s_test_passes(environment: dict[str, str], tmp_path: Path) -> None:
    (text,) = [block.text for block in blocks(ROOT / "docs/quickstart.md") if block.text.startswith("def test_")]
    (tmp_path / "test_quickstart.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "test_quickstart.py"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize("page", ["docs/api.md", "docs/guides/command-line.md"])
def test_a_page_s_commands_say_what_stands_there(page: str, environment: dict[str, str], tmp_path: Path) -> None:
    console = Console(environment, tmp_path)
    commands = [block for block in blocks(ROOT / page) if block.language == "console"]
    assert commands
    for block in commands:
        console.check(block)


def test_the_readme_is_one_machine_s_life(
    server: ServerProcess, environment: dict[str, str], runner: Runner, tmp_path: Path
) -> None:
    console = Console(environment, tmp_path)
    checked = 0
    for block in blocks(ROOT / "README.md"):
        if "the machine sleeps" in block.before:
            with torpor.Client() as client:
                client.machine("analysis").sleep()
        if "Stop the server and start it again" in block.before:
            server.restart()
        if block.language == "python":
            runner.check(console.translate(block.text), {})
            checked += 1
        elif block.language == "console" and "scripts/serve" not in block.text:
            console.check(block, skip=lambda command: command.startswith("export "))
            checked += 1
    assert checked >= 6
