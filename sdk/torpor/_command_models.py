"""What a command is asked for, what came of it, and how the server lists it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ._errors import CommandFailed, ProtocolError
from ._events import Error, Notice, Stderr, Stdout
from ._models import Record
from ._stream import StreamState


class CommandInfo(Record):
    """A command in a list."""

    seq: int
    command: str | tuple[str, ...] | None
    """A line for the shell, or a program and its arguments; None if it is not kept any more."""
    cwd: str | None = None
    env: Mapping[str, str] = {}
    pty: bool = False
    background: bool = False
    timeout_seconds: float | None = None
    state: str
    """`waiting`, `running` (also while its machine sleeps) or `finished`."""
    exit_code: int | None = None
    signal: str | None = None
    timed_out: bool = False
    error: str | None = None
    attempt: int = 0
    undone: bool = False
    accepted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class CommandAnswer(Record):
    """The answer to a command that was waited for."""

    seq: int
    exit_code: int | None
    signal: str | None
    timed_out: bool
    error: str | None
    stdout: str
    stderr: str
    truncated_bytes: int = 0
    notices: tuple[Notice, ...] = ()
    timings: Mapping[str, Any] = {}


class CommandStarted(Record):
    """The answer to a command in the background, and to what is sent to one."""

    seq: int


class CommandPage(Record):
    """A page of commands."""

    commands: tuple[CommandInfo, ...]
    next_cursor: str | None = None


@dataclass(frozen=True)
class CommandResult:
    r"""How a command ended, and what it said.

    >>> result = machine.commands.run("echo hello; exit 3")
    >>> result.exit_code, result.stdout
    (3, 'hello\n')
    """

    seq: int
    """The command's number on its machine; instructions and commands are counted together."""
    exit_code: int | None
    """None if a signal ended it, or if it never began."""
    stdout: str
    stderr: str
    signal: str | None = None
    """The name of the signal that ended it, such as `SIGKILL`."""
    timed_out: bool = False
    """Whether it was ended because its time was over."""
    error: str | None = None
    """What went wrong, in a sentence; None if it ended by itself, and with 0."""
    truncated_bytes: int = 0
    """How much more it said than is kept."""
    notices: tuple[Notice, ...] = ()
    """What its users should know about the machine, such as a recovery."""
    timings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, and with 0."""
        return self.error is None

    def raise_for_error(self) -> CommandResult:
        """Raise `CommandFailed` unless all went well; else return this result.

        >>> machine.commands.run("exit 3").raise_for_error()
        Traceback (most recent call last):
        torpor.CommandFailed: ...
        """
        if self.error is not None:
            raise CommandFailed(self)
        return self


def command_body(
    command: str | Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: str | None,
    stdin_open: bool | None,
    timeout_seconds: float | None,
    background: bool,
    pty: bool | tuple[int, int],
    notices: bool = True,
) -> dict[str, Any]:
    """The body of a request for a command."""
    terminal: Any = {"rows": pty[0], "columns": pty[1]} if isinstance(pty, tuple) else (True if pty else None)
    return {
        "command": command if isinstance(command, str) else list(command),
        "cwd": cwd,
        "env": None if env is None else dict(env),
        "stdin": stdin,
        "stdin_open": stdin_open,
        "timeout_seconds": timeout_seconds,
        "background": background or None,
        "pty": terminal,
        "notices": None if notices else False,
    }


def input_body(data: str | bytes, *, close: bool) -> dict[str, Any]:
    """The body of a request with input."""
    if isinstance(data, str):
        return {"data": data, "close": close}
    return {"data": base64.b64encode(data).decode("ascii"), "encoding": "base64", "close": close}


def result_of_answer(answer: CommandAnswer) -> CommandResult:
    """The result that an answer holds."""
    return CommandResult(
        seq=answer.seq,
        exit_code=answer.exit_code,
        stdout=answer.stdout,
        stderr=answer.stderr,
        signal=answer.signal,
        timed_out=answer.timed_out,
        error=answer.error,
        truncated_bytes=answer.truncated_bytes,
        notices=answer.notices,
        timings=answer.timings,
    )


def result_of_stream(state: StreamState) -> CommandResult:
    """The result that a finished stream holds. Raises `ProtocolError` for one that is not."""
    finished = state.finished
    if finished is None or state.seq is None:
        raise ProtocolError("The stream ended before the command did.")
    events = [event for event in state.events if not getattr(event, "background", False)]
    notices = tuple(event for event in events if isinstance(event, Notice))
    error = next((f"{event.name}: {event.message}" for event in events if isinstance(event, Error)), None)
    return CommandResult(
        seq=state.seq,
        exit_code=finished.exit_code,
        stdout="".join(event.text for event in events if isinstance(event, Stdout)),
        stderr="".join(event.text for event in events if isinstance(event, Stderr)),
        signal=finished.signal,
        timed_out=finished.timed_out,
        error=finished.result.get("error", error),
        truncated_bytes=sum(event.truncated_bytes for event in notices),
        notices=tuple(notice for notice in notices if not isinstance(notice.id, str)),
        timings=finished.timings,
    )
