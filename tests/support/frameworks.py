"""The tools for language models' frameworks, each tested in an environment of its own against the published library.

    scripts/test-frameworks [NAME ...]      all of them by default
    scripts/test-frameworks --lock [NAME ...]      take the newest versions that fit, and write the locks anew

`tests/frameworks/NAME.txt` locks an environment, `tests/frameworks/test_NAME.py` runs in it, and `torpor.tools.NAME` is
type-checked there. All of them talk to one `torpor serve`. Environments are kept between runs, by their lock's digest.
`NAME@VERSION.txt` locks another environment for the same test and module, with what `NAME@VERSION.in` asks for.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "frameworks"
AT_ONCE = 2
TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "mypy", "hatchling", "editables")
"""What the environments have beside a framework."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torpor-tests" / "frameworks"


class Failed(Exception):
    """A step ended in an error; the message is what it printed."""


def names() -> list[str]:
    """The frameworks that there are tests for."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def lock(name: str) -> None:
    """Resolve a framework's extra, if it has one, and write its lock."""
    project = ROOT / "sdk" / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    own = _framework(name).replace("_", "-")
    extra = [*(["--extra", own] if own in extras else []), str(project), "-"]
    options = ["--quiet", "--no-header", "--no-annotate", "--python-version", "3.11", "--universal", "--upgrade"]
    wanted = "\n".join((*TOOLS, *_more(name)))
    done = _run(["-m", "uv", "pip", "compile", *options, "--generate-hashes", *extra], stdin=wanted)
    (FOLDER / f"{name}.txt").write_text(done)


def _framework(name: str) -> str:
    return name.partition("@")[0]


def _more(name: str) -> list[str]:
    """What a framework's test needs beside its extra: `tests/frameworks/NAME.in`."""
    path = FOLDER / f"{name}.in"
    return path.read_text().split() if path.exists() else []


def environment(name: str) -> Path:
    """The Python of a framework's environment, which is made if it is not there. Raises `Failed`."""
    text = (FOLDER / f"{name}.txt").read_bytes()
    folder = CACHE / f"{name}-{hashlib.sha256(text + sys.version.encode()).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _run(["-m", "uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        lock_file = str(FOLDER / f"{name}.txt")
        _run(["-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", lock_file])
        (folder / "complete").touch()
    return python


def check(name: str, server: ServerProcess) -> str:
    """Test a framework; a line that says so. Raises `Failed`."""
    begun = time.monotonic()
    python = environment(name)
    with tempfile.TemporaryDirectory() as folder:
        # A target of its own: checkouts share the environment, and several may be tested at once.
        sdk = ["-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--target", folder]
        _run([*sdk, "--no-deps", "--no-build-isolation", str(ROOT / "sdk")])
        built = time.monotonic()
        variables = {
            "PYTHONPATH": folder,
            "TORPOR_URL": server.url,
            "TORPOR_API_KEY": server.api_key,
            "TORPOR_TEST_RUN": f"{name.replace('@', '-')}-{os.getpid()}",
        }
        framework = _framework(name)
        module = ROOT / "sdk" / "torpor" / "tools" / framework
        if module.is_dir() or module.with_suffix(".py").exists():
            strict = ["--strict", "--allow-subclassing-any", "--disable-error-code", "import-untyped"]
            _run(["-m", "mypy", *strict, "-p", f"torpor.tools.{framework}"], python, variables, cwd=Path(folder))
        own = ["-m", "pytest", "-q", "-c", str(FOLDER / "pytest.ini"), str(FOLDER / f"test_{framework}.py")]
        said = _run(own, python, variables)
    last = said.strip().splitlines()[-1]
    return f"{name}: {last} (environment {built - begun:.0f} s, in all {time.monotonic() - begun:.0f} s)"


def _run(
    arguments: list[str],
    python: Path | str = sys.executable,
    variables: dict[str, str] | None = None,
    *,
    stdin: str | None = None,
    cwd: Path = ROOT,
) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORPOR_", "PYTHON"))}
    done = subprocess.run(
        [str(python), *arguments],
        env=kept | (variables or {}),
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if stdin is not None else subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(arguments)}\n{done.stdout}{done.stderr or ''}")
    return done.stdout


def main() -> None:
    """Test what is named; exits with 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    asked = parser.parse_args()
    if asked.lock:
        for name in asked.names or names():
            lock(name)
        return
    failures = 0
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder)) as server:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for name, future in [(name, pool.submit(check, name, server)) for name in asked.names or names()]:
                try:
                    print(future.result(), flush=True)
                except (Failed, subprocess.TimeoutExpired) as error:
                    failures += 1
                    print(f"{name} FAILED:\n{error}", flush=True)
        if failures:
            print(server.log[-10_000:])
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
