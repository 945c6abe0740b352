"""The documentation as a site: it builds without a warning, and everything public is in its reference."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import torpor
import torpor.tools

ROOT = Path(__file__).parents[2]
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
ENTRY = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    site = tmp_path / "site"
    built = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    machines = (site / "reference" / "machines" / "index.html").read_text()
    assert 'id="torpor.Machine.run"' in machines
    assert "&gt;&gt;&gt;" in machines
    assert (site / "sdk" / "index.html").exists()


def test_everything_public_is_in_the_reference() -> None:
    entries = [name for page in (ROOT / "docs" / "reference").glob("*.md") for name in ENTRY.findall(page.read_text())]
    assert len(entries) == len(set(entries))
    public = {f"{module.__name__}.{name}" for module in (torpor, torpor.tools) for name in module.__all__}
    modules = {f"torpor.{name}" for name in public_in("") | public_in("tools") | {"compat.e2b"}}
    assert {"torpor.jupyter", "torpor.tools.mcp", "torpor.tools.openai"} <= modules
    assert (public | modules) - {"torpor.tools", "torpor.compat"} - set(entries) == set()


def public_in(folder: str) -> set[str]:
    """Modules and packages of a folder of the SDK."""
    paths = (ROOT / "sdk" / "torpor" / folder).glob("[a-z]*")
    found = (path for path in paths if path.suffix == ".py" or (path / "__init__.py").exists())
    return {f"{folder}.{path.stem}".strip(".") for path in found}


def test_every_example_of_a_framework_s_docstrings_is_run_in_its_environment() -> None:
    folder = ROOT / "sdk" / "torpor" / "tools"
    missing = []
    for test in (ROOT / "tests" / "frameworks").glob("test_*.py"):
        framework = test.stem.removeprefix("test_")
        package = folder / framework
        for path in package.glob("*.py") if package.is_dir() else folder.glob(f"{framework}.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, Documented) and ">>>" in (ast.get_docstring(node) or ""):
                    name = f"torpor.tools.{framework}" if isinstance(node, ast.Module) else node.name
                    if not re.search(rf"\.docstring\(\s*{re.escape(name)}[,)]", test.read_text()):
                        missing.append(f"{path.relative_to(folder)}: {name}")
    assert not missing


def test_every_program_of_a_page_is_run_by_a_test() -> None:
    shown = {
        page.relative_to(ROOT).with_suffix("").as_posix()
        for page in [ROOT / "README.md", ROOT / "sdk" / "README.md", *(ROOT / "docs").rglob("*.md")]
        if "\n```python\n" in page.read_text()
    }
    tests = [ROOT / "tests" / "acceptance" / "test_examples.py", *(ROOT / "tests" / "frameworks").glob("test_*.py")]
    text = "\n".join(test.read_text() for test in tests)
    run = {page for page in shown if f'"{page}.md"' in text}
    run |= {f"docs/guides/{name}" for name in re.findall(r'guide\("([\w-]+)"', text)}
    run |= {f"docs/{name}" for name in re.findall(r'page\("([\w/-]+)"', text)}
    assert shown - run == set()
