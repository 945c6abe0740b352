"""A machine as the sandbox of an agent: commands, terminals and files."""

from __future__ import annotations

import asyncio
import io
import math
import uuid
from pathlib import Path
from typing import Literal

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceWriteTypeError,
)
from agents.sandbox.session import SandboxSessionState
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.runtime_helpers import RESOLVE_WORKSPACE_PATH_HELPER, RuntimeHelperScript
from agents.sandbox.session.tar_workspace import shell_tar_exclude_args
from agents.sandbox.types import ExecResult, User
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, validate_tar_bytes
from agents.sandbox.workspace_paths import sandbox_path_str

from ..._async_machine import AsyncMachine
from ..._errors import FileNotFound, MachineNotFound, NotAFolder, TorporError
from .._ending import end_command_async, end_started_async
from ._results import exec_result
from ._terminals import Terminals

HOME = "/home/user"
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 3600.0
"""What a server takes by default as a command's time-out."""
_MARKERS = "/tmp/openai-agents/torpor"  # noqa: S108 - on the machine, which is the agent's own


class TorporSandboxSessionState(SandboxSessionState):
    """Which machine it is; so a run that is resumed from its state has the same one."""

    type: Literal["torpor"] = "torpor"
    machine_name: str


class TorporSandboxSession(BaseSandboxSession):
    """An agent's work on a machine. Its end ends nothing on the machine: files, processes and variables stay.

    Commands that run in the background (`exec_command` gives a session id) go on in the next run, and their ids are
    good in any process.
    """

    state: TorporSandboxSessionState

    def __init__(self, state: TorporSandboxSessionState, machine: AsyncMachine) -> None:
        self.state = state
        self.machine = machine
        self._terminals = Terminals(machine)
        self._has_root = False
        # Whether the machine has this workspace is asked of the machine, by its marker.
        self._set_start_state_preserved(True)
        state.workspace_root_ready = False

    # What the machine has already is not made again.

    async def _prepare_backend_workspace(self) -> None:
        await self._exec_checked_nonzero("mkdir", "-p", "--", self.state.manifest.root)
        self._has_root = True

    async def _probe_workspace_root_for_preserved_resume(self) -> bool:
        if not (await self._exec_internal("test", "-e", self._marker())).ok():
            return False
        self._mark_workspace_root_ready_from_probe()
        return True

    async def _after_start(self) -> None:
        await self._exec_checked_nonzero("mkdir", "-p", "--", self._marker())

    async def _can_skip_snapshot_restore_on_resume(self, *, is_running: bool) -> bool:
        return True  # what is on the machine is newer than any snapshot

    def _marker(self) -> str:
        return f"{_MARKERS}/{self._resume_manifest_digest()}"

    # Commands. Of those in the background a model reads what they say, with the machine's notices; of the others, which
    # are the SDK's own, mostly nobody does.

    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:
        words = [str(word) for word in command]
        seconds = math.inf if timeout is None else _in_bounds(timeout)
        stream = self.machine.commands.stream(
            words, cwd=self._folder(), env=await self._variables(), timeout_seconds=seconds, notices=False
        )
        try:
            result = await stream.result()
        except asyncio.CancelledError:
            await end_command_async(self.machine, stream)
            raise
        except TorporError as error:
            raise ExecTransportError(command=words, cause=error, message=str(error)) from error
        if result.timed_out:
            raise ExecTimeoutError(command=words, timeout_s=timeout)
        return exec_result(result)

    def _prepare_exec_command(
        self, *command: str | Path, shell: bool | list[str], user: str | User | None
    ) -> list[str]:
        _refuse(user)
        words: list[str] = super()._prepare_exec_command(*command, shell=shell, user=None)
        return words

    def supports_pty(self) -> bool:
        """Commands can go on in the background, with a terminal or without."""
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Begin a command, and what it says within `yield_time_s`; its `process_id` if it goes on.

        Cancelled, it ends the command, whose number nobody has been told.
        """
        words = self._prepare_exec_command(*command, shell=shell, user=user)
        start = self.machine.commands.start(
            words,
            cwd=self._folder(),
            env=await self._variables(),
            timeout_seconds=None if timeout is None else _in_bounds(timeout),
            pty=tty,
            stdin_open=tty,
        )
        starting = asyncio.create_task(start, name="start of a command")
        try:
            begun = await asyncio.shield(starting)
            return await self._terminals.update(begun.seq, yield_time_s, max_output_tokens)
        except asyncio.CancelledError:
            await end_started_async(starting)
            raise
        except TorporError as error:
            raise ExecTransportError(command=words, cause=error, message=str(error)) from error

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Give a command input, or look after it if `chars` is empty. Raises `PtySessionNotFoundError`."""
        await self._terminals.write(session_id, chars)
        return await self._terminals.update(session_id, yield_time_s, max_output_tokens, looking=not chars)

    async def pty_terminate_all(self) -> None:
        """Leave the commands in the background alone: the machine goes on, and so do they."""
        await self._terminals.leave()

    def _folder(self) -> str | None:
        return self.state.manifest.root if self._has_root else None

    async def _variables(self) -> dict[str, str]:
        variables: dict[str, str] = await self.state.manifest.environment.resolve()
        return variables

    # Files.

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        place: Path = await self._validate_remote_path_access(path, for_write=for_write)
        return place

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """A file of the workspace. Raises `WorkspaceReadNotFoundError`, `WorkspaceArchiveReadError`."""
        _refuse(user)
        place = sandbox_path_str(await self._validate_path_access(path))
        try:
            return io.BytesIO(await self.machine.files.read(place))
        except (FileNotFound, NotAFolder) as error:
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error
        except TorporError as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file of the workspace, and make its folders. Raises `WorkspaceArchiveWriteError`."""
        _refuse(user)
        content = data.read()
        if isinstance(content, str):
            content = content.encode()
        if not isinstance(content, bytes | bytearray):
            raise WorkspaceWriteTypeError(path=path, actual_type=type(content).__name__)
        place = sandbox_path_str(await self._validate_path_access(path, for_write=True))
        try:
            await self.machine.files.write(place, bytes(content))
        except TorporError as error:
            raise WorkspaceArchiveWriteError(path=path, cause=error) from error

    # The whole.

    async def running(self) -> bool:
        """Whether there is the machine; asleep it is as good as awake."""
        try:
            return (await self.machine.detail()).state != "parked"
        except MachineNotFound:
            return False

    async def persist_workspace(self) -> io.IOBase:
        """The workspace as a tar archive, for a snapshot that is kept elsewhere."""
        archive = f"/tmp/{uuid.uuid4().hex}.tar"  # noqa: S108 - on the machine
        left_out = " ".join(shell_tar_exclude_args(self._persist_workspace_skip_relpaths()))
        try:
            await self._exec_checked_nonzero(
                "sh", "-c", f'tar {left_out} -C "$1" -cf "$2" .', "sh", self.state.manifest.root, archive
            )
            return io.BytesIO(await self.machine.files.read(archive))
        finally:
            await self._exec_internal("rm", "-f", archive)

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Unpack a tar archive of a workspace."""
        content = data.read()
        root = self._workspace_root_path()
        try:
            validate_tar_bytes(content)
        except UnsafeTarMemberError as error:
            raise WorkspaceArchiveWriteError(path=root, cause=error) from error
        archive = f"/tmp/{uuid.uuid4().hex}.tar"  # noqa: S108 - on the machine
        try:
            await self.machine.files.write(archive, content)
            await self._exec_checked_nonzero("tar", "-C", self.state.manifest.root, "-xf", archive)
        finally:
            await self._exec_internal("rm", "-f", archive)


def _in_bounds(seconds: float) -> float:
    """The nearest time-out that a server takes."""
    return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS)


def _refuse(user: str | User | None) -> None:
    if user is not None:
        raise ValueError("A machine has one user, who owns the workspace: leave `user` and `run_as` out.")
