"""E2B's `Sandbox` on a machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType

from .._client import Client
from .._errors import MachineNotFound
from .._machine import Machine
from .e2b_cells import (
    RUN_SECONDS,
    OnError,
    OnOutput,
    OnResult,
    check_language,
    endings,
    setting,
    tags_of,
    telling,
)
from .e2b_commands import Commands
from .e2b_files import Filesystem
from .e2b_results import Execution, execution_of


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
            self._machine = self._client.new_machine(tags=tags_of(metadata), template=template)
        else:
            self._machine = self._client.machine(sandbox_id, create=False)
        self.commands: Commands = Commands(self._machine)
        self.files: Filesystem = Filesystem(self._machine)
        if envs:
            self._machine.run(setting(envs), notices=False).raise_for_error()

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
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        on_result: OnResult | None = None,
        on_error: OnError | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = RUN_SECONDS,
        request_timeout: float | None = None,
    ) -> Execution:
        """Run a cell. An error of the code is in the answer, and is not raised.

        `timeout` 0 or None is the longest that the server allows. Raises `TorporError` for a language that is not
        Python.
        """
        check_language(language)
        if envs:
            self._machine.run(setting(envs), queue=True, notices=False).raise_for_error()
        tell = telling(on_stdout, on_stderr, on_result)
        result = self._machine.run(code, timeout_seconds=timeout or math.inf, queue=True, on_output=tell)
        execution = execution_of(result)
        for call in endings(execution, result.notices, on_stderr, on_result, on_error):
            call()
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
