"""E2B's code interpreter on machines that are always there: change one import.

    from torpor.compat.e2b import Sandbox        # instead of: from e2b_code_interpreter import Sandbox

The guide `docs/guides/e2b.md` says what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

from .._client import Client
from .._errors import MachineNotFound, TorporError
from .._events import Display, Stderr, Stdout
from .._machine import Machine
from .e2b_commands import LONGEST_SECONDS, CommandExitException, CommandHandle, CommandResult, Commands
from .e2b_errors import (
    FileNotFoundException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    NotFoundException,
    SandboxException,
)
from .e2b_files import EntryInfo, Filesystem, FileType, WriteEntry, WriteInfo
from .e2b_results import (
    Execution,
    ExecutionError,
    Logs,
    OutputMessage,
    Result,
    error_of,
    execution_of,
    message_of,
    result_of,
)

__all__ = [
    "CommandExitException",
    "CommandHandle",
    "CommandResult",
    "EntryInfo",
    "Execution",
    "ExecutionError",
    "FileNotFoundException",
    "FileType",
    "Filesystem",
    "InvalidArgumentException",
    "Logs",
    "NotEnoughSpaceException",
    "NotFoundException",
    "OutputMessage",
    "Result",
    "Sandbox",
    "SandboxException",
    "WriteEntry",
    "WriteInfo",
]

RUN_SECONDS = 300.0
"""E2B's default time-out of a cell."""
METADATA = "e2b-"
"""What tags that are metadata of E2B's begin with."""


class Sandbox:
    """A machine with E2B's interface. It has no time-out: it sleeps when it is idle, and wakes when it is called."""

    default_template = "python"

    def __init__(
        self,
        template: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        *,
        sandbox_id: str | None = None,
        client: Client | None = None,
    ) -> None:
        """A new machine, or with `sandbox_id` that one. `timeout` means nothing: nothing ends by itself.

        `client` replaces the one with the settings of environment and configuration file.
        """
        self._client = client or Client()
        if sandbox_id is None:
            tags = {f"{METADATA}{name}": value for name, value in (metadata or {}).items()}
            self._machine = self._client.new_machine(tags=tags, template=template)
        else:
            self._machine = self._client.machine(sandbox_id, create=False)
        self.commands: Commands = Commands(self._machine)
        self.files: Filesystem = Filesystem(self._machine)
        if envs:
            self._machine.run(f"import os; os.environ.update({dict(envs)!r})").raise_for_error()

    @classmethod
    def create(
        cls,
        template: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        *,
        client: Client | None = None,
    ) -> Sandbox:
        """A new machine. Arguments as for the class.

        >>> sandbox = Sandbox.create()
        >>> execution = sandbox.run_code("a = 3")
        >>> sandbox.run_code("a + 5").text
        '8'
        """
        return cls(template, timeout, metadata, envs, client=client)

    @classmethod
    def connect(cls, sandbox_id: str, timeout: float | None = None, *, client: Client | None = None) -> Sandbox:
        """A machine by its id, asleep or not, however long ago it was made. Raises `MachineNotFound`."""
        sandbox = cls(sandbox_id=sandbox_id, client=client)
        sandbox.machine.detail()
        return sandbox

    @property
    def machine(self) -> Machine:
        """The machine, with all that Torpor can do with it."""
        return self._machine

    @property
    def sandbox_id(self) -> str:
        """The machine's name."""
        return self._machine.name

    def run_code(
        self,
        code: str,
        language: str | None = None,
        on_stdout: Callable[[OutputMessage], object] | None = None,
        on_stderr: Callable[[OutputMessage], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_error: Callable[[ExecutionError], object] | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = RUN_SECONDS,
        request_timeout: float | None = None,
    ) -> Execution:
        """Run a cell. An error of the code is in the answer, and is not raised.

        `timeout` 0 or None is an hour. Raises `TorporError` for another language than Python.
        """
        if language not in (None, "python"):
            raise TorporError(
                f"{language} is not spoken here.", hint="Machines run Python; `commands.run` runs shells."
            )
        if envs:
            self._machine.run(f"import os; os.environ.update({dict(envs)!r})", queue=True).raise_for_error()

        def tell(event: Stdout | Stderr | Display) -> None:
            if isinstance(event, Display):
                if on_result is not None:
                    on_result(result_of(event.data))
            elif (call := on_stderr if isinstance(event, Stderr) else on_stdout) is not None:
                call(message_of(event))

        listens = any(call is not None for call in (on_stdout, on_stderr, on_result))
        result = self._machine.run(
            code, timeout_seconds=timeout or LONGEST_SECONDS, queue=True, on_output=tell if listens else None
        )
        execution = execution_of(result)
        if on_result is not None and execution.results and execution.results[-1].is_main_result:
            on_result(execution.results[-1])
        if on_error is not None and result.error is not None:
            on_error(error_of(result.error))
        return execution

    def pause(self) -> bool:
        """Put it to sleep now. Never needed: idle, it falls asleep."""
        self._machine.sleep()
        return True

    def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether it is there, asleep or awake: either way, the next call is answered."""
        try:
            self._machine.detail()
        except MachineNotFound:
            return False
        return True

    def set_timeout(self, timeout: float) -> None:
        """Nothing: it does not end by itself."""

    def kill(self) -> bool:
        """Delete it for good; False if it is not there."""
        if not self.is_running():
            return False
        self._machine.delete()
        return True

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def __repr__(self) -> str:
        return f"Sandbox({self.sandbox_id!r})"
