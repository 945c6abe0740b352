"""Requests and answers about commands beside instructions."""

from __future__ import annotations

import base64
import binascii
import signal as signals
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from torpor_api.models import NOTICES, Answer, NoticeAnswer, StrictRequest, TimeoutSeconds, Timings

COMMAND_LIMIT_BYTES = 256 * 1024
ENVIRONMENT_LIMIT = 256
STDIN_LIMIT_BYTES = 1 << 20
CELLS_LIMIT = 2000


def _without_nulls(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain null bytes")
    value.encode()  # a lone surrogate is a ValueError
    return value


Text = Annotated[str, AfterValidator(_without_nulls)]
ShortText = Annotated[str, Field(max_length=4096), AfterValidator(_without_nulls)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^=]+$"), AfterValidator(_without_nulls)]
Cells = Annotated[int, Field(ge=1, le=CELLS_LIMIT)]


class TerminalSize(StrictRequest):
    """The size of a terminal's window, in characters."""

    rows: Cells = 24
    columns: Cells = 80


class CommandRequest(StrictRequest):
    """A command, and how it is to be executed."""

    command: Annotated[Text, Field(min_length=1)] | Annotated[list[Text], Field(min_length=1, max_length=4096)] = Field(
        description="A string for the shell (`/bin/bash -c`), or a program and its arguments."
    )
    cwd: ShortText | None = Field(default=None, description="The folder to begin in; the home folder by default.")
    env: Annotated[dict[Name, Text], Field(max_length=ENVIRONMENT_LIMIT)] | None = Field(
        default=None, description="Variables beside those that every process of the machine has."
    )
    stdin: Annotated[str, Field(max_length=STDIN_LIMIT_BYTES)] | None = Field(
        default=None, description="What it reads first, at most 1 MiB."
    )
    stdin_open: bool | None = Field(
        default=None,
        description="Whether more input may follow, by `stdin`. By default so for a command in the background that was "
        "given none, and for one with a terminal; otherwise its input ends behind `stdin`.",
    )
    timeout_seconds: TimeoutSeconds | None = Field(
        default=None,
        description="From 1 to the server's maximum, or `longest`, which is that; as for instructions by default, and "
        "none in the background. Counts running time only.",
    )
    background: bool | None = Field(
        default=False, description="Answer at once; it runs on while the machine is awake, and sleeps with it."
    )
    pty: TerminalSize | bool | None = Field(
        default=None, description="Give it a terminal instead of pipes: `true`, or the size of its window."
    )
    notices: bool | None = NOTICES

    @model_validator(mode="after")
    def _fits(self) -> Self:
        words = [self.command] if isinstance(self.command, str) else self.command
        size = sum(len(word.encode()) for word in [*words, *(self.env or {}).values()])
        if size > COMMAND_LIMIT_BYTES:
            raise ValueError(f"a command and its environment must not be longer than {COMMAND_LIMIT_BYTES} bytes")
        if self.stdin is not None and len(self.stdin.encode(errors="surrogatepass")) > STDIN_LIMIT_BYTES:
            raise ValueError(f"`stdin` must not be longer than {STDIN_LIMIT_BYTES} bytes; send the rest as input")
        return self


class CommandInputRequest(StrictRequest):
    """More for a command's standard input."""

    data: Annotated[str, Field(max_length=2 * STDIN_LIMIT_BYTES)] | None = Field(
        default=None, description="At most 1 MiB."
    )
    encoding: Literal["utf-8", "base64"] | None = Field(default="utf-8", description="How `data` is written.")
    close: bool | None = Field(default=False, description="Nothing follows: its input ends behind `data`.")

    @property
    def content(self) -> bytes:
        """The bytes of `data`."""
        if self.encoding == "base64":
            return base64.b64decode(self.data or "", validate=True)
        return (self.data or "").encode()

    @model_validator(mode="after")
    def _decodes(self) -> Self:
        try:
            size = len(self.content)
        except (binascii.Error, ValueError):
            raise ValueError(f"`data` is not {self.encoding}") from None
        if size > STDIN_LIMIT_BYTES:
            raise ValueError(f"`data` must not be longer than {STDIN_LIMIT_BYTES} bytes; send it in pieces")
        return self


def _signal(value: str | int) -> str | int:
    try:
        signals.Signals[f"SIG{value.upper().removeprefix('SIG')}"] if isinstance(value, str) else signals.Signals(value)
    except (KeyError, ValueError):
        raise ValueError(f"there is no signal {value}") from None
    return value


class CommandSignalRequest(StrictRequest):
    """A signal for a command."""

    signal: Annotated[str, Field(max_length=16), AfterValidator(_signal)] | Annotated[int, AfterValidator(_signal)] = (
        Field(description="By name (`TERM` or `SIGTERM`) or by number.")
    )

    @property
    def number(self) -> int:
        """The signal's number."""
        if isinstance(self.signal, int):
            return self.signal
        return signals.Signals[f"SIG{self.signal.upper().removeprefix('SIG')}"].value


class CommandStarted(Answer):
    """The command was accepted; `seq` names it."""

    machine: str
    seq: int


class CommandAnswer(Answer):
    """How a command ended, and all that it said. `error` is null if it ended by itself, and with 0."""

    machine: str
    seq: int
    exit_code: int | None
    signal: str | None
    timed_out: bool
    error: str | None
    stdout: str
    stderr: str
    truncated_bytes: int
    notices: list[NoticeAnswer]
    timings: Timings


class Command(Answer):
    """A command in a list. `state` is `running` too while its machine sleeps."""

    seq: int
    command: str | list[str] | None
    cwd: str | None
    env: dict[str, str]
    pty: bool
    background: bool
    timeout_seconds: float | None
    state: Literal["waiting", "running", "finished"]
    exit_code: int | None
    signal: str | None
    timed_out: bool
    error: str | None
    attempt: int
    undone: bool
    rolled_back: bool
    replayed: bool
    expired: bool
    accepted_at: str
    started_at: str | None
    finished_at: str | None
    timings: Timings


class CommandList(Answer):
    """A machine's commands: those that run first, then newest first."""

    commands: list[Command]
    next_cursor: str | None = None
