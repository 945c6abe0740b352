"""Limits by cgroup, version 1 or 2, where this process may write them; elsewhere sandboxes run without.

They are a backstop behind the guest and the memory watcher, so nothing here raises: a limit that cannot be set is left.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torpor_worker.sandbox import Limits

MOUNT = Path("/sys/fs/cgroup")
"""Where the kernel's control groups are mounted on every current Linux."""

_CONTROLLERS = ("memory", "pids", "cpu")
_MEBIBYTE = 1024 * 1024

_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'
"""A shell that writes its process id into the files before `--` and becomes the command behind it."""


def limit_files(limits: Limits, version: int) -> dict[str, dict[str, str]]:
    """Controller to file name to text for one sandbox's limits.

    Memory is twice the machine's limit and 512 MiB: images are written from within, and their pages count. A guest's
    process is several tasks of the host's, hence the factor at `pids`.
    """
    memory = str(2 * limits.memory_bytes + 512 * _MEBIBYTE)
    tasks = str(16 * limits.processes)
    if version == 1:
        share = str(max(2, round(1024 * limits.cpu_shares)))
        return {
            "memory": {"memory.limit_in_bytes": memory},
            "pids": {"pids.max": tasks},
            "cpu": {"cpu.shares": share},
        }
    weight = str(min(10_000, max(1, round(100 * limits.cpu_shares))))
    return {
        "memory": {"memory.max": memory, "memory.oom.group": "1"},
        "pids": {"pids.max": tasks},
        "cpu": {"cpu.weight": weight},
    }


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The cgroups of one host folder's sandboxes: one for each controller (version 1) or one for all (version 2)."""

    version: int
    parents: dict[str, Path]
    """Controller to the folder under which each sandbox gets one of its own."""

    @classmethod
    def find(cls, host_folder: Path, mount: Path = MOUNT) -> Cgroups | None:
        """The writable hierarchy for the sandboxes of `host_folder`, made if need be; None where there is none."""
        name = f"torpor-{sha256(str(host_folder).encode()).hexdigest()[:12]}"
        if (mount / "cgroup.controllers").exists():
            parent = mount / name
            if not (_make(parent) and _delegate(mount) and _delegate(parent)):
                _remove(parent)
                return None
            return cls(2, dict.fromkeys(_CONTROLLERS, parent))
        parents = {
            controller: mount / controller / name
            for controller in _CONTROLLERS
            if (mount / controller / "cgroup.procs").exists() and _make(mount / controller / name)
        }
        return cls(1, parents) if parents else None

    def make(self, sandbox: str, limits: Limits) -> tuple[str, ...]:
        """Make the sandbox's cgroups and set its limits; what to put before the command that starts it.

        The command enters them before it becomes `runsc`, so that every process it forks is in them from its birth.
        """
        for folder in self._folders(sandbox):
            _make(folder)
        self.limit(sandbox, limits)
        members = [str(folder / "cgroup.procs") for folder in sorted(self._folders(sandbox)) if folder.is_dir()]
        return ("sh", "-c", _ENTER, "sh", *members, "--")

    def limit(self, sandbox: str, limits: Limits) -> None:
        """Set the limits of a sandbox whose cgroups are made."""
        for controller, files in limit_files(limits, self.version).items():
            folder = self._folder(controller, sandbox)
            if folder is not None:
                for file, text in files.items():
                    _write(folder / file, text)

    async def remove(self, sandbox: str) -> None:
        """Remove the cgroups of a sandbox whose processes are gone; they may be busy for a moment."""
        for folder in self._folders(sandbox):
            for _ in range(50):
                if _remove(folder):
                    break
                await asyncio.sleep(0.02)

    async def remove_all(self) -> None:
        """Remove the cgroups of every sandbox and those above them."""
        for parent in set(self.parents.values()):
            with suppress(OSError):
                for folder in [entry for entry in parent.iterdir() if entry.is_dir()]:
                    await self.remove(folder.name)
            _remove(parent)

    def _folder(self, controller: str, sandbox: str) -> Path | None:
        parent = self.parents.get(controller)
        return parent / sandbox if parent is not None else None

    def _folders(self, sandbox: str) -> set[Path]:
        return {parent / sandbox for parent in self.parents.values()}


def _delegate(folder: Path) -> bool:
    """Let the children of a version 2 folder have the controllers."""
    wanted = " ".join(f"+{controller}" for controller in _CONTROLLERS)
    return _write(folder / "cgroup.subtree_control", wanted)


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(file: Path, text: str) -> bool:
    try:
        file.write_text(text)
    except OSError:
        return False
    return True
