"""An environment of its own for each framework, with the versions that are pinned in its folder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FRAMEWORKS = sorted(file.parent.name for file in FOLDER.glob("*/requirements.txt"))
_SECONDS = 1200


def python_of(framework: str) -> Path:
    """The Python of a framework's environment, which is made if it is not there or its pins have changed."""
    pins = FOLDER / framework / "requirements.txt"
    folder = Path(sys.prefix) / "frameworks" / framework
    python, stamp = folder / "bin" / "python", folder / "torpor-setup"
    want = hashlib.sha256(pins.read_bytes() + (ROOT / "sdk" / "pyproject.toml").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != want:
        stamp.unlink(missing_ok=True)
        venv.create(folder, with_pip=True, clear=True)
        _pip(python, "--requirement", str(pins), "--editable", str(ROOT / "sdk"))
        stamp.write_text(want)
    return python


def make(frameworks: list[str]) -> dict[str, Path]:
    """The Python of each, made side by side."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(frameworks, pool.map(python_of, frameworks), strict=True))


def _pip(python: Path, *arguments: str) -> None:
    install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*install, *arguments], check=True, timeout=_SECONDS)
