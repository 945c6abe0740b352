"""The map of the project: imports go one way, api to worker to snapshotter, and the guest stands alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOLDERS = {
    "torpor_api": ROOT / "api" / "torpor_api",
    "torpor_worker": ROOT / "worker" / "torpor_worker",
    "torpor_snapshotter": ROOT / "snapshotter" / "torpor_snapshotter",
    "torpor": ROOT / "sdk" / "torpor",
}
ALLOWED = {
    "torpor_api": {"torpor_api", "torpor_worker", "torpor_snapshotter"},
    "torpor_worker": {"torpor_worker", "torpor_snapshotter"},
    "torpor_snapshotter": {"torpor_snapshotter"},
    "torpor": {"torpor"},
}


def imported(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_go_from_api_to_worker_to_snapshotter_and_never_back(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FOLDERS[package].rglob("*.py")
        if "guest" not in path.parts
        for name in imported(path)
        if (top := name.split(".")[0]) in FOLDERS and top not in ALLOWED[package]
    ]
    assert not wrong


def test_guest_code_imports_nothing_of_ours_from_outside_itself() -> None:
    guest = FOLDERS["torpor_worker"] / "guest"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in guest.rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in set(FOLDERS) - {"torpor"} and not name.startswith("torpor_worker.guest")
    ]
    assert not wrong
