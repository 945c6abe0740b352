"""What is left of sandboxes: processes, and the files in which `runsc` keeps its containers.

`runsc delete` kills whatever process has the id that a container's file names, and after a restart of the host that may
be anybody's. So processes are found by what they are, and the files are removed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from torpor_worker.sandbox import SandboxError

_SANDBOX = "_sandbox:"
"""Stands between a container's id and its sandbox's in the names of `runsc`'s files."""

_COMMAND_SECONDS = 60
_COMMANDS = frozenset({"checkpoint", "create", "pause", "restore", "resume", "start", "state"})

_SOCKET_FOLDERS = (Path("/run"), Path("/tmp"))  # noqa: S108 - not to write there, to remove what `runsc` wrote
"""Where `runsc` puts a control socket whose path in the state folder would be too long."""


def sandbox_processes(state: Path, wanted: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """The processes that run containers of the state folder and whose arguments are `wanted`.

    Every `runsc` process and the sandbox itself carry `--root=STATE` and the container's id in their arguments; an
    exact comparison leaves those of other folders alone. What a sandbox has forked dies with it.
    """
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if f"--root={state}" in arguments and wanted(arguments):
            found.append(process)
    return found


async def commands_ended(state: Path, container: str) -> None:
    """Wait for what a dead server had begun to do with a container, and that still runs: a checkpoint, say.

    Raises `SandboxError` after a minute.
    """

    def is_command(arguments: list[str]) -> bool:
        return container in arguments and not _COMMANDS.isdisjoint(arguments)

    commands = await asyncio.to_thread(sandbox_processes, state, is_command)
    _, running = await asyncio.to_thread(psutil.wait_procs, commands, timeout=_COMMAND_SECONDS)
    if running:
        raise SandboxError(f"a command of the last server's does not end: {running}")


def kill_processes(processes: list[psutil.Process]) -> None:
    """Kill them and wait until they are gone, at most 30 s."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=30)


def known_containers(state: Path, machines: Path) -> set[str]:
    """The ids of the containers that files of `runsc` or folders of sandboxes name."""
    files = {file.name.partition(_SANDBOX)[0] for file in state.glob(f"*{_SANDBOX}*")}
    return files | {folder.name for folder in machines.iterdir()}


def forget_container(state: Path, container: str) -> None:
    """Remove the files and the control socket of a container whose processes are gone."""
    for file in state.glob(f"{container}{_SANDBOX}*"):
        file.unlink(missing_ok=True)
    for folder in (state, *_SOCKET_FOLDERS):
        with suppress(OSError):
            (folder / f"runsc-{container}.sock").unlink()
