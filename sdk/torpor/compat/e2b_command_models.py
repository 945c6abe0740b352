"""What E2B knows of commands, with the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .._command_models import CommandInfo
from .._command_models import CommandResult as OwnResult
from .._events import Stderr, Stdout
from .e2b_errors import SandboxException, TimeoutException
from .e2b_results import notices_of

OnText = Callable[[str], object]


@dataclass
class CommandResult:
    """How a command ended."""

    stderr: str
    stdout: str
    exit_code: int
    """128 and the signal's number if a signal ended it, as shells say it."""
    error: str | None


@dataclass
class ProcessInfo:
    """A command that runs."""

    pid: int
    """The command's number on its machine."""
    tag: str | None
    """Always None."""
    cmd: str
    args: list[str]
    envs: dict[str, str]
    """Beside those that every process of the machine has."""
    cwd: str | None


class CommandExitException(SandboxException):
    """A command ended with another exit code than 0."""

    stderr: str
    stdout: str
    exit_code: int
    error: str | None

    def __init__(self, result: CommandResult) -> None:
        super().__init__(f"Command exited with code {result.exit_code} and error:\n{result.stderr}")
        self.stderr = result.stderr
        self.stdout = result.stdout
        self.exit_code = result.exit_code
        self.error = result.error


def checked(result: OwnResult) -> CommandResult:
    """The result in E2B's form. Raises `TimeoutException`, and `CommandExitException` unless it ended with 0."""
    if result.timed_out:
        raise TimeoutException("The command was ended because its time was over: `timeout` may be greater, or 0.")
    exit_code = result.exit_code
    if exit_code is None:
        import signal  # noqa: PLC0415

        number = getattr(signal, result.signal or "", None)
        exit_code = 1 if number is None else 128 + int(number)
    stderr = result.stderr + "".join(notices_of(result.notices))
    answer = CommandResult(stderr, result.stdout, exit_code, result.error)
    if exit_code:
        raise CommandExitException(answer)
    return answer


def told(on_stdout: OnText | None, on_stderr: OnText | None) -> Callable[[Stdout | Stderr], object] | None:
    """What tells of a piece of output, and returns what the callback did; None if nobody wants to know."""
    if on_stdout is None and on_stderr is None:
        return None

    def tell(event: Stdout | Stderr) -> object:
        call = on_stderr if isinstance(event, Stderr) else on_stdout
        return None if call is None else call(event.text)

    return tell


def processes(commands: Iterable[CommandInfo]) -> list[ProcessInfo]:
    """Those of the commands that have not ended, in E2B's form."""
    return [_process(command) for command in commands if command.state != "finished"]


def _process(command: CommandInfo) -> ProcessInfo:
    line = command.command or ""
    program, *arguments = ("sh", "-c", line) if isinstance(line, str) else line
    return ProcessInfo(command.seq, None, program, arguments, dict(command.env), command.cwd)
