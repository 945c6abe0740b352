"""Python wheels: fetched by pip under pinned hashes, unpacked by us so that nothing of the host gets in."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from torpor_snapshotter.runtimes.errors import DownloadFailed
from torpor_snapshotter.runtimes.lock import Wheel
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.tree import Tree

PYTHON = "python3.13"
SITE = f"usr/local/lib/{PYTHON}/dist-packages"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PIP_TIMEOUT_SECONDS = 1800
_SCRIPT = """\
#!/usr/bin/{python}
import sys

from {module} import {first}

sys.exit({function}())
"""


def fetch_wheels(wheels: tuple[Wheel, ...], folder: Path, report: Report) -> list[Path]:
    """The wheel files, sorted by name. Raises `DownloadFailed` with pip's words, also for a wrong hash."""
    task = f"Downloading {len(wheels)} Python packages" if len(wheels) > 1 else f"Downloading {wheels[0].name}"
    report(task)
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
    )
    _pip("download", "--quiet", "--no-deps", "--require-hashes", "-d", str(folder), "-r", str(requirements), *_target())
    report(task, 1)
    sought = {(_normalised(wheel.name), wheel.version) for wheel in wheels}
    files = {(_normalised(file.name.split("-")[0]), file.name.split("-")[1]): file for file in folder.glob("*.whl")}
    if not sought <= set(files):
        raise DownloadFailed(f"pip fetched no file for {sorted(sought - set(files))}.")
    return [files[wheel] for wheel in sorted(sought)]


def resolve_wheels(requirements: tuple[str, ...]) -> tuple[Wheel, ...]:
    """What pip would install today for `requirements`, with all they need, sorted by name."""
    output = _pip("install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", *_target(), *requirements)
    found = []
    for entry in json.loads(output)["install"]:
        sha256 = entry["download_info"]["archive_info"]["hashes"]["sha256"]
        found.append(Wheel(entry["metadata"]["name"].lower(), entry["metadata"]["version"], sha256))
    return tuple(sorted(found, key=lambda wheel: wheel.name))


def unpack_wheel(file: Path, tree: Tree) -> None:
    """Install a wheel below `/usr/local` of the tree; without its test suites, and without notes about this host."""
    with zipfile.ZipFile(file) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            place = _installed_path(member.filename)
            if place is None or member.is_dir():
                continue
            with archive.open(member) as content:
                tree.file(place, content, executable=bool(member.external_attr >> 16 & 0o111))
            if member.filename.endswith(".dist-info/entry_points.txt"):
                _write_scripts(archive.read(member).decode(), tree)


def _normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed_path(name: str) -> str | None:
    parts = name.split("/")
    if "tests" in parts[:-1]:
        return None
    if parts[0].endswith(".data"):
        places = {"purelib": SITE, "platlib": SITE, "data": "usr/local", "scripts": "usr/local/bin"}
        return "/".join([places[parts[1]], *parts[2:]]) if parts[1] in places else None
    return f"{SITE}/{name}"


def _write_scripts(entry_points: str, tree: Tree) -> None:
    parsed = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep upper case
    parsed.read_string(entry_points)
    if not parsed.has_section("console_scripts"):
        return
    for name, target in sorted(parsed.items("console_scripts")):
        module, function = re.split(r"\s*:\s*", target.split("[")[0].strip())
        script = _SCRIPT.format(python=PYTHON, module=module, function=function, first=function.split(".")[0])
        tree.text(f"usr/local/bin/{name}", script, executable=True)


def _target() -> list[str]:
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    return ["--only-binary", ":all:", "--python-version", "3.13", "--implementation", "cp", *platforms]


def _pip(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        capture_output=True,
        text=True,
        timeout=_PIP_TIMEOUT_SECONDS,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode:
        raise DownloadFailed(f"pip could not fetch the Python packages: {done.stderr.strip()}")
    return done.stdout
