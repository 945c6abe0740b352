"""E2B's `sandbox.commands` on a machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from .._events import Stderr, Stdout
from .._machine import Machine
from .._machine_commands import Command
from .e2b_command_models import CommandResult, OnText, ProcessInfo, checked, processes, told
from .e2b_results import notices_of


class CommandHandle:
    """A command in the background. It has a number instead of a process id."""

    def __init__(self, command: Command) -> None:
        self._command = command

    @property
    def pid(self) -> int:
        """The command's number on its machine."""
        return self._command.seq

    def __iter__(self) -> Iterator[tuple[str | None, str | None, None]]:
        """What it says, from its beginning, on standard output or standard error, while it says it."""
        with self._command.stream() as stream:
            for event in stream:
                if isinstance(event, Stdout):
                    yield event.text, None, None
                elif isinstance(event, Stderr):
                    yield None, event.text, None

    def wait(
        self,
        on_pty: Callable[[bytes], object] | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> CommandResult:
        """How it ended, once it has. Raises `CommandExitException`, `TimeoutException`."""
        return checked(self._command.wait(on_output=told(on_stdout, on_stderr)))

    def kill(self) -> bool:
        """SIGKILL it; False if it has ended."""
        if self._command.done():
            return False
        self._command.signal("KILL")
        return True

    def send_stdin(self, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to its standard input."""
        self._command.send_stdin(data)

    def close_stdin(self, request_timeout: float | None = None) -> None:
        """End its standard input."""
        self._command.close_stdin()

    def disconnect(self) -> None:
        """Nothing: it is followed only while it is waited for, and runs on."""


class Commands:
    """Commands of one sandbox."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def run(
        self,
        cmd: str,
        background: bool | None = None,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        stdin: bool | None = None,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: bool = True,
    ) -> CommandResult | CommandHandle:
        """Execute a line for the shell; with `background`, a handle at once.

        After `timeout` seconds of running it is ended, also in the background; 0 or None is as long as the server
        allows, and in the background without end. `user`, `request_timeout` and `retain_output` mean nothing here:
        there is one user, one time-out, and output is kept. Raises `CommandExitException`, `TimeoutException`.
        """
        if background:
            command = self._machine.commands.start(
                cmd, cwd=cwd, env=envs, stdin_open=bool(stdin), timeout_seconds=timeout or None
            )
            return CommandHandle(command)
        result = self._machine.commands.run(
            cmd,
            cwd=cwd,
            env=envs,
            timeout_seconds=timeout or math.inf,
            on_output=told(on_stdout, on_stderr),
        )
        if on_stderr is not None:
            for line in notices_of(result.notices):
                on_stderr(line)
        return checked(result)

    def kill(self, pid: int, request_timeout: float | None = None) -> bool:
        """SIGKILL a command by its number; False if it has ended."""
        return self.connect(pid).kill()

    def send_stdin(self, pid: int, data: str | bytes, request_timeout: float | None = None) -> None:
        """Write to a command's standard input."""
        self.connect(pid).send_stdin(data)

    def close_stdin(self, pid: int, request_timeout: float | None = None) -> None:
        """End a command's standard input."""
        self.connect(pid).close_stdin()

    def connect(
        self,
        pid: int,
        timeout: float | None = 60,
        request_timeout: float | None = None,
        *,
        retain_output: bool = True,
    ) -> CommandHandle:
        """The handle of a command by its number. It is followed as long as it runs, whatever `timeout` is."""
        return CommandHandle(self._machine.commands.get(pid))

    def list(self, request_timeout: float | None = None) -> list[ProcessInfo]:
        """The commands that run."""
        return processes(self._machine.commands.list(limit=0))
