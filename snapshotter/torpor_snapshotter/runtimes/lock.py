"""The lock: exactly what a runtime is built from, and the digests that must come out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOCK_FILE = Path(__file__).with_name("lock.json")


@dataclass(frozen=True, slots=True)
class Package:
    """One Debian package: where it lies on every mirror, and what it must be."""

    name: str
    version: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """One Python wheel for the sandbox."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class RuntimeLock:
    """Everything that decides a runtime's bytes, as in `lock.json`."""

    runsc_version: str
    """The stamp inside the binary; a snapshot wakes only under an equal one."""
    go_version: str
    go_wheel_sha256: str
    runsc_sha256: str
    suite: str
    rootfs_sha256: str
    wanted_packages: tuple[str, ...]
    without_packages: tuple[str, ...]
    """Needed by some package, but not in a sandbox."""
    wanted_tools: tuple[str, ...]
    packages: tuple[Package, ...]
    """What the root file system consists of."""
    tools: tuple[Package, ...]
    """What packs it, with its libraries; not inside."""
    requirements: tuple[str, ...]
    """What users are promised; `wheels` is its closure."""
    wheels: tuple[Wheel, ...]

    @property
    def series(self) -> str:
        """The name of the runtime that this lock describes."""
        return f"{self.runsc_version}-{self.rootfs_sha256[:12]}"


def load_lock(path: Path = LOCK_FILE) -> RuntimeLock:
    """Read a lock file. Raises `ValueError` for one that is malformed."""
    return parse_lock(path.read_text())


def parse_lock(text: str) -> RuntimeLock:
    """The lock in a JSON text. Raises `ValueError` naming what is wrong."""
    facts: dict[str, Any] = json.loads(text)
    try:
        return RuntimeLock(
            **{
                **facts,
                "packages": tuple(Package(**entry) for entry in facts["packages"]),
                "tools": tuple(Package(**entry) for entry in facts["tools"]),
                "requirements": tuple(facts["requirements"]),
                "wanted_packages": tuple(facts["wanted_packages"]),
                "without_packages": tuple(facts["without_packages"]),
                "wanted_tools": tuple(facts["wanted_tools"]),
                "wheels": tuple(Wheel(**entry) for entry in facts["wheels"]),
            }
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"The runtime lock is malformed: {error}") from error


def format_lock(lock: RuntimeLock) -> str:
    """The lock as it is checked in: one entry a line, so that a change is a readable diff."""
    lines = []
    for key, value in asdict(lock).items():
        if isinstance(value, tuple):
            entries = ",\n".join(f"    {json.dumps(entry)}" for entry in value)
            lines.append(f'  "{key}": [\n{entries}\n  ]')
        else:
            lines.append(f'  "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"
