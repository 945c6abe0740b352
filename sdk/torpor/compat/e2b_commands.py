"""E2B's `sandbox.commands` on a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .._command_models import CommandResult as OwnResult
from .._events import Stderr, Stdout
from .._machine import Machine
from .._machine_commands import Command
from .e2b_errors import SandboxException

LONGEST_SECONDS = 3600.0
"""What E2B calls no time-out."""

OnText = Callable[[str], object]


@dataclass
class CommandResult:
    """How a command ended."""

    stderr: str
    stdout: str
    exit_code: int
    """128 and the signal's number if a signal ended it, as shells say it."""
    error: str | None


class CommandExitException(SandboxException):
    """A command ended with another exit code than 0."""

    def __init__(self, result: CommandResult) -> None:
        super().__init__(f"Command exited with code {result.exit_code} and error:\n{result.stderr}")
        self.stderr: str = result.stderr
        self.stdout: str = result.stdout
        self.exit_code: int = result.exit_code
        self.error: str | None = result.error


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
        return checked(self._command.wait(on_output=_told(on_stdout, on_stderr)))

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
            timeout_seconds=timeout or LONGEST_SECONDS,
            on_output=_told(on_stdout, on_stderr),
        )
        return checked(result)

    def kill(self, pid: int) -> bool:
        """SIGKILL a command by its number; False if it has ended."""
        return self.connect(pid).kill()

    def connect(self, pid: int) -> CommandHandle:
        """The handle of a command by its number."""
        return CommandHandle(self._machine.commands.get(pid))


def checked(result: OwnResult) -> CommandResult:
    """The result in E2B's form. Raises `CommandExitException` unless it ended with 0."""
    exit_code = result.exit_code
    if exit_code is None:
        import signal  # noqa: PLC0415

        number = getattr(signal, result.signal or "", None)
        exit_code = 1 if number is None else 128 + int(number)
    answer = CommandResult(result.stderr, result.stdout, exit_code, result.error)
    if exit_code:
        raise CommandExitException(answer)
    return answer


def _told(on_stdout: OnText | None, on_stderr: OnText | None) -> Callable[[Stdout | Stderr], object] | None:
    if on_stdout is None and on_stderr is None:
        return None

    def tell(event: Stdout | Stderr) -> None:
        call = on_stderr if isinstance(event, Stderr) else on_stdout
        if call is not None:
            call(event.text)

    return tell
