"""Each framework's tests, in an environment of its own, against a real server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.frameworks.conftest import INSIDE
from tests.frameworks.environments import FOLDER, FRAMEWORKS, ROOT, make
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(1800)]

MODULES = {"langchain": ["langchain", "deepagents"]}
"""What of `torpor.tools` belongs to a framework, where that is not one module of its name."""


@pytest.fixture(scope="session")
def pythons(request: pytest.FixtureRequest) -> dict[str, Path]:
    """The Python of each framework that is asked for."""
    asked = {item.callspec.params["framework"] for item in request.session.items if hasattr(item, "callspec")}
    return make([framework for framework in FRAMEWORKS if framework in asked])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running `torpor serve` of the test's own."""
    with ServerProcess(tmp_path) as process:
        yield process


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_tools_work_in(framework: str, pythons: dict[str, Path], server: ServerProcess) -> None:
    variables = {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, INSIDE: framework}
    done = subprocess.run(
        [str(pythons[framework]), "-P", "-m", "pytest", "-q", "--durations=5", str(FOLDER / framework)],
        cwd=ROOT,
        env=server.environment() | variables,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_types_agree_with(framework: str, pythons: dict[str, Path]) -> None:
    modules = [f"torpor/tools/{name}.py" for name in MODULES.get(framework, [framework])]
    options = ["--strict", "--explicit-package-bases", "--follow-imports=silent", "--config-file="]
    done = subprocess.run(
        [str(pythons[framework]), "-P", "-m", "mypy", *options, *modules], cwd=ROOT / "sdk", check=False
    )
    assert done.returncode == 0
