"""E2B's `sandbox.commands` on a machine."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .._machine import Machine
from .._machine_commands import Command
from .e2b_command_models import CommandResult, OnText, checked, told
from .e2b_results import notices_of


class CommandHandle:
    """A command in the background. It has a number instead of a process id."""

    def __init__(self, command: Command) -> None:
        self._command = command

    @property
    def pid(self) -> int:
        """The command's number on its machine."""
        return self._command.seq

    def wait(self, on_stdout: OnText | None = None, on_stderr: OnText | None = None) -> CommandResult:
        """How it ended, once it has. Raises `CommandExitException`."""
        return checked(self._command.wait(on_output=told(on_stdout, on_stderr)))

    def kill(self) -> bool:
        """SIGKILL it; False if it has ended."""
        if self._command.done():
            return False
        self._command.signal("KILL")
        return True

    def send_stdin(self, data: str) -> None:
        """Write to its standard input."""
        self._command.send_stdin(data)


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
    ) -> CommandResult | CommandHandle:
        """Execute a line for the shell; with `background`, a handle at once. Raises `CommandExitException`.

        `user` and `request_timeout` mean nothing here: there is one user, and one time-out.
        """
        if background:
            return CommandHandle(self._machine.commands.start(cmd, cwd=cwd, env=envs, stdin_open=bool(stdin)))
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

    def kill(self, pid: int) -> bool:
        """SIGKILL a command by its number; False if it has ended."""
        return self.connect(pid).kill()

    def connect(self, pid: int) -> CommandHandle:
        """The handle of a command by its number."""
        return CommandHandle(self._machine.commands.get(pid))
