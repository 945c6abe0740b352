"""deepagents: a sandbox for its agents, whose files and processes are still there in the thread's next run.

>>> from deepagents import create_deep_agent
>>> from torpor.tools.deepagents import MachineSandbox
>>> agent = create_deep_agent("anthropic:claude-sonnet-4-6", backend=MachineSandbox())
>>> agent.invoke({"messages": [("user", "Write a poem into poem.txt.")]}, {"configurable": {"thread_id": "thread-42"}})
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from deepagents.backends.protocol import (
    FILE_NOT_FOUND,
    INVALID_PATH,
    IS_DIRECTORY,
    PERMISSION_DENIED,
    ExecuteResponse,
    FileDownloadResponse,
    FileUploadResponse,
)
from deepagents.backends.sandbox import BaseSandbox
from langchain_core.runnables.config import ensure_config

from .._client import Client
from .._errors import (
    ApiError,
    DiskFull,
    FileFailed,
    FileNotFound,
    FilePermissionDenied,
    FilesUnsupported,
    InvalidPath,
    IsAFolder,
    NotAFile,
    NotAFolder,
    StorageFull,
)
from .._machine import Machine
from .._machine_files import Files
from ._binding import default_client, machine_of
from ._shell import Shell

TIMEOUT_SECONDS: Final = 3600
_WORDS: Final[dict[type[ApiError], str]] = {
    FileNotFound: FILE_NOT_FOUND,
    IsAFolder: IS_DIRECTORY,
    FilePermissionDenied: PERMISSION_DENIED,
    NotAFolder: INVALID_PATH,
    NotAFile: INVALID_PATH,
    InvalidPath: INVALID_PATH,
}
_OF_ONE_FILE: Final[tuple[type[ApiError], ...]] = (*_WORDS, DiskFull, StorageFull, FileFailed, FilesUnsupported)
_BY_COMMANDS: Final = ("ls", "read", "grep", "glob", "write", "edit", "delete")
"""What deepagents does with files, by commands whose output it reads itself."""
_FOR_ITSELF: ContextVar[bool] = ContextVar("for_itself", default=False)
"""Whether deepagents reads the output of what is executed, and no model."""


class MachineSandbox(BaseSandbox):
    """The machine of the thread that an agent runs in, with its files and its shell.

    The thread is that of the run's configuration (`{"configurable": {"thread_id": "thread-42"}}`); subagents share it.
    Beside `torpor.tools.langchain.PythonTool` an agent has Python and a shell on the same machine.
    """

    def __init__(
        self,
        machine: Machine | Client | None = None,
        conversation: str | None = None,
        *,
        timeout_seconds: int = 30 * 60,
    ) -> None:
        """For whatever thread it is used in, or for one machine.

        Args:
            machine: A client; by default `Client()`. Or one machine, whatever the thread is.
            conversation: With a client, the id of the conversation where the run's configuration names no thread.
            timeout_seconds: After so much running time a command is ended, unless the model asks for another time.
        """
        self._owner = machine
        self._conversation = conversation
        self._timeout_seconds = timeout_seconds

    @property
    def machine(self) -> Machine:
        """The machine of the thread that runs. Raises ValueError if nothing says which that is."""
        if isinstance(self._owner, Machine):
            return self._owner
        thread = ensure_config().get("configurable", {}).get("thread_id")
        conversation = self._conversation if thread is None else str(thread)
        if conversation is None:
            raise ValueError(
                "Nothing says whose machine this is: run the agent with the configuration "
                "{'configurable': {'thread_id': '...'}}, or make the sandbox with `conversation` or with a machine."
            )
        return machine_of(self._owner or default_client(), conversation)

    @property
    def id(self) -> str:
        """The machine's name."""
        return self.machine.name

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a shell command; its output, stdout and stderr in their order, and its exit code.

        After `timeout` seconds (0: as late as the server allows) it is ended with exit code 124.
        """
        return ExecuteResponse(*self._shell.execute(command, self._seconds(timeout)))

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """The same for asynchronous agents. Cancelled, it ends the command, and what that has started."""
        return ExecuteResponse(*await self._shell.aexecute(command, self._seconds(timeout)))

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files; what went wrong with each is in its response."""
        to = self.machine.files
        return [FileUploadResponse(path, _upload(to, path, content)) for path, content in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files; what went wrong with each is in its response."""
        of = self.machine.files
        return [_download(of, path) for path in paths]

    @property
    def _shell(self) -> Shell:
        return Shell(self.machine, notices=not _FOR_ITSELF.get())

    def _seconds(self, timeout: int | None) -> float:
        seconds = self._timeout_seconds if timeout is None else timeout
        return min(seconds or TIMEOUT_SECONDS, TIMEOUT_SECONDS)


def _upload(files: Files, path: str, content: bytes) -> str | None:
    if not path.startswith("/"):
        return str(INVALID_PATH)
    try:
        files.write(path, content)
    except _OF_ONE_FILE as error:
        return _word(error)
    return None


def _download(files: Files, path: str) -> FileDownloadResponse:
    if not path.startswith("/"):
        return FileDownloadResponse(path, error=INVALID_PATH)
    try:
        return FileDownloadResponse(path, files.read(path))
    except _OF_ONE_FILE as error:
        return FileDownloadResponse(path, error=_word(error))


def _word(error: ApiError) -> str:
    return str(_WORDS.get(type(error), error.message))


@contextmanager
def _for_itself() -> Iterator[None]:
    token = _FOR_ITSELF.set(True)
    try:
        yield
    finally:
        _FOR_ITSELF.reset(token)


def _leaving_notices(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, whose commands leave the machine's notices to those whose output a model reads."""

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with _for_itself():
            return method(*arguments, **named)

    @functools.wraps(method)
    async def acall(*arguments: Any, **named: Any) -> Any:
        with _for_itself():
            return await method(*arguments, **named)

    return acall if inspect.iscoroutinefunction(method) else call


for _name in (name for each in _BY_COMMANDS for name in (each, f"a{each}") if name in vars(BaseSandbox)):
    setattr(MachineSandbox, _name, _leaving_notices(getattr(BaseSandbox, _name)))


__all__ = ["MachineSandbox"]
