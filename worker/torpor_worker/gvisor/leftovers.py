"""What an earlier life of a host's folder left: processes, containers, folders."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import psutil


def sandbox_processes(state: Path, spared: Collection[str] = ()) -> list[psutil.Process]:
    """The processes of this user's that run containers of the state folder, except those of the `spared` containers.

    Every `runsc` process, the sandbox itself and what it forked carry `--root=STATE` and the container's id in their
    arguments; an exact comparison leaves those of other folders alone.
    """
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            if f"--root={state}" in arguments and not set(spared) & set(arguments):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_processes(processes: list[psutil.Process]) -> None:
    """Kill them and wait until they are gone, at most 30 s."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=30)
