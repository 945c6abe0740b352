"""deepagents: a sandbox for its agents, whose files and processes are still there in the thread's next run.

>>> from deepagents import create_deep_agent
>>> from torpor.tools.deepagents import MachineSandbox
>>> agent = create_deep_agent("anthropic:claude-sonnet-4-6", backend=MachineSandbox())
>>> agent.invoke({"messages": [("user", "Write a poem into poem.txt.")]}, {"configurable": {"thread_id": "thread-42"}})
"""

from __future__ import annotations

import errno
from typing import Final

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
from .._machine import Machine
from ._binding import default_client, machine_of
from ._shell import Shell

TIMEOUT_SECONDS: Final = 3600
_ERRORS = {
    errno.ENOENT: FILE_NOT_FOUND,
    errno.EISDIR: IS_DIRECTORY,
    errno.EACCES: PERMISSION_DENIED,
    errno.EPERM: PERMISSION_DENIED,
}


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
        seconds = self._timeout_seconds if timeout is None else timeout
        done = Shell(self.machine).execute(command, min(seconds or TIMEOUT_SECONDS, TIMEOUT_SECONDS))
        return ExecuteResponse(done.output, done.exit_code, done.truncated)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files; what went wrong with each is in its response."""
        shell = Shell(self.machine)
        return [FileUploadResponse(path, self._upload(shell, path, content)) for path, content in files]

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files; what went wrong with each is in its response."""
        shell = Shell(self.machine)
        return [self._download(shell, path) for path in paths]

    def _upload(self, shell: Shell, path: str, content: bytes) -> str | None:
        if not path.startswith("/"):
            return str(INVALID_PATH)
        try:
            shell.write(path, content)
        except OSError as error:
            return _word(error)
        return None

    def _download(self, shell: Shell, path: str) -> FileDownloadResponse:
        if not path.startswith("/"):
            return FileDownloadResponse(path, error=INVALID_PATH)
        try:
            return FileDownloadResponse(path, shell.read(path))
        except OSError as error:
            return FileDownloadResponse(path, error=_word(error))


def _word(error: OSError) -> str:
    word: str = _ERRORS.get(error.errno or 0, str(error))
    return word


__all__ = ["MachineSandbox"]
