"""A machine as the workspace of an agent of Pydantic AI's: commands, and the files that they see."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.tools import AgentDepsT
from pydantic_ai.workspaces import (
    CommandResult,
    FileEntry,
    SupportsCommands,
    SupportsFilesystem,
    SupportsRealpath,
    Workspace,
    WorkspaceBackend,
    WorkspaceCommand,
    WorkspaceError,
    WorkspaceOutputLimitError,
    WorkspaceRef,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)

from ..._async_client import AsyncClient
from ..._async_machine import AsyncMachine
from ..._command_models import CommandResult as Result
from ..._errors import MachineNotFound, MachineParked
from ..._reading import notices_text
from .._binding import machine_of
from .._ending import end_command_async
from .._exit_codes import exit_code_of

PROVIDER: Final = "torpor"
LONGEST_SECONDS: Final = 3600.0
"""What a server allows a command by default."""


class MachineWorkspaceBackend(WorkspaceBackend, SupportsCommands, SupportsFilesystem, SupportsRealpath):
    """A machine as a workspace: the conversation's, one that a ref names, or a new one.

    Its ref is the machine's own name. When a run ends the machine stays, with its files and whatever runs there.
    A command without a time-out has the longest that the server allows. Files are read and written by commands.
    """

    def __init__(
        self,
        machine: AsyncMachine | AsyncClient,
        conversation: str | None = None,
        *,
        ref: WorkspaceRef | None = None,
    ) -> None:
        """Asks nothing yet.

        Args:
            machine: The machine, or a client.
            conversation: With a client, the id of the conversation whose machine it is; by default it is a new one.
            ref: With a client, the machine that it is, which must exist.
        """
        self._owner = machine
        self._conversation = conversation
        self._ref = ref
        self._machine: AsyncMachine | None = None
        self._folder: str | None = None
        self._first = asyncio.Lock()

    @property
    def ref(self) -> WorkspaceRef | None:
        """The machine's own name; None until the first operation has made or found it."""
        return self._ref

    async def working_dir(self) -> str:
        """The home folder. Raises `WorkspaceUnavailableError` if the machine is gone."""
        machine = await self._found()
        if self._folder is None:
            with _available():
                asked = await machine.commands.run(["pwd", "-P"], notices=False)
                self._folder = asked.raise_for_error().stdout.removesuffix("\n")
        return self._folder

    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """Execute a command, beside whatever else runs. Cancelled, it ends the command and what that has started.

        What the machine's users were not told yet, such as a recovery, comes first on stderr.
        """
        return await self._run(command, shell=shell, env=env, timeout=timeout, notices=True)

    async def _run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool,
        env: Mapping[str, str] | None,
        timeout: float | None,
        notices: bool,
    ) -> CommandResult:
        if isinstance(command, str) != shell:
            raise TypeError("A text needs `shell=True`, and a list of arguments does without.")
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ValueError("`timeout` must be a positive number of seconds, or None.")
        machine = await self._found()
        seconds = math.inf if timeout is None else min(timeout, LONGEST_SECONDS)
        with _available():
            stream = machine.commands.stream(command, env=env, timeout_seconds=seconds, notices=notices)
            try:
                return _answer(await stream.result(), seconds)
            except asyncio.CancelledError:
                await end_command_async(machine, stream)
                raise

    # Files: as Pydantic AI reads and writes them by commands, which leave the machine's notices.

    async def read_bytes(self, path: str) -> bytes:
        """A file."""
        data: bytes = await self._files.read_bytes(path)
        return data

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file, and make its folders."""
        await self._files.write_bytes(path, data)

    async def stat(self, path: str) -> FileEntry:
        """What is there, behind links."""
        return await self._files.stat(path)

    async def list_dir(self, path: str) -> Sequence[FileEntry]:
        """What is in a folder."""
        entries: Sequence[FileEntry] = await self._files.list_dir(path)
        return entries

    async def make_dir(self, path: str) -> None:
        """Make a folder, and those on the way to it."""
        await self._files.make_dir(path)

    async def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it, but not the one that commands begin in."""
        await self._files.remove(path)

    async def exists(self, path: str) -> bool:
        """Whether there is something."""
        there: bool = await self._files.exists(path)
        return there

    async def realpath(self, path: str) -> str:
        """The path behind all links."""
        real: str = await self._files.realpath(path)
        return real

    @property
    def _files(self) -> Workspace:
        return Workspace(_Quiet(self))

    async def _found(self) -> AsyncMachine:
        async with self._first:
            if self._machine is None:
                self._machine = await self._find()
            return self._machine

    async def _find(self) -> AsyncMachine:
        if isinstance(self._owner, AsyncMachine):
            machine = self._owner
        elif self._ref is not None:
            machine = self._owner.machine(self._ref.id, create=False)
        elif self._conversation is not None:
            machine = machine_of(self._owner, self._conversation)
        else:
            machine = await asyncio.shield(self._make(self._owner))
        if self._ref is None:
            with _available():
                self._ref = WorkspaceRef(provider=PROVIDER, id=(await machine.detail()).name)
        return machine

    async def _make(self, client: AsyncClient) -> AsyncMachine:
        """A new machine, whose name is kept even if nobody waits for it any more."""
        machine = await client.new_machine()
        self._machine, self._ref = machine, WorkspaceRef(provider=PROVIDER, id=machine.name)
        return machine


class _Quiet(WorkspaceBackend, SupportsCommands):
    """The same workspace, whose commands nobody reads but Pydantic AI."""

    def __init__(self, backend: MachineWorkspaceBackend) -> None:
        self._backend = backend

    @property
    def ref(self) -> WorkspaceRef | None:
        return self._backend.ref

    async def working_dir(self) -> str:
        return await self._backend.working_dir()

    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        return await self._backend._run(command, shell=shell, env=env, timeout=timeout, notices=False)


class MachineWorkspace(AbstractCapability[AgentDepsT]):
    """Gives each of an agent's runs the machine of its conversation as its workspace.

    >>> agent = Agent(model, capabilities=[MachineWorkspace(client)], toolsets=[PythonToolset(client)])

    A run that is told to go on in the workspace of a message history has that machine, whose it may be in the client's
    account: take no histories from strangers.
    """

    def __init__(self, client: AsyncClient) -> None:
        """The client belongs to the event loop in which the agent runs."""
        self._client = client

    def get_workspace(self, ctx: RunContext[AgentDepsT], *, ref: WorkspaceRef | None) -> WorkspaceBackend | None:
        """The machine of the conversation, or that which `ref` names; None for a ref of another provider."""
        if ref is None:
            return MachineWorkspaceBackend(self._client, ctx.conversation_id)
        return MachineWorkspaceBackend(self._client, ref=ref) if ref.provider == PROVIDER else None


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (MachineNotFound, MachineParked) as error:
        raise WorkspaceUnavailableError(error.message) from error


def _answer(result: Result, seconds: float) -> CommandResult:
    told = notices_text(result.notices)
    said = {"stdout": result.stdout, "stderr": told + result.stderr}
    if result.timed_out:
        after = "as much time as the server allows" if seconds == math.inf else f"{seconds:g} s"
        raise WorkspaceTimeoutError(f"The command was ended after {after}.", **said)
    if result.truncated_bytes:
        limit = len(result.stdout) + len(result.stderr)
        raise WorkspaceOutputLimitError("The command said more than is kept: send it to a file.", limit=limit, **said)
    exit_code = exit_code_of(result)
    if exit_code is None:
        raise WorkspaceError(told + (result.error or "The command did not end by itself."))
    return CommandResult(exit_code=exit_code, **said)
