"""A command beside cells, as it is asked for and as it stands in the log."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Terminal:
    """The size of a pseudo-terminal's window, in characters."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """What is to be executed, and how."""

    command: str | tuple[str, ...]
    """For the shell, or a program and its arguments."""
    cwd: str | None = None
    """None: the user's home."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside what every process of the user's has."""
    stdin: bytes = b""
    stdin_open: bool = False
    """Whether more input may follow; if not, its standard input ends after `stdin`."""
    terminal: Terminal | None = None
    """None: three pipes."""

    def to_text(self) -> str:
        """As it stands in the log; ASCII."""
        fields: dict[str, Any] = {
            "command": self.command if isinstance(self.command, str) else list(self.command),
            "cwd": self.cwd,
            "env": dict(self.env),
            "stdin": _pack(self.stdin),
            "stdin_open": self.stdin_open,
            "terminal": None if self.terminal is None else [self.terminal.rows, self.terminal.columns],
        }
        return json.dumps(fields)

    @classmethod
    def from_text(cls, text: str) -> CommandSpec:
        """The inverse of `to_text`."""
        fields = json.loads(text)
        command = fields["command"]
        return cls(
            command=command if isinstance(command, str) else tuple(command),
            cwd=fields["cwd"],
            env=fields["env"],
            stdin=_unpack(fields["stdin"]),
            stdin_open=fields["stdin_open"],
            terminal=None if fields["terminal"] is None else Terminal(*fields["terminal"]),
        )

    def to_frame(self, seq: int, output_limit_bytes: int) -> dict[str, Any]:
        """As the guest is told."""
        return {
            "seq": seq,
            "argv": self.command if isinstance(self.command, str) else list(self.command),
            "cwd": self.cwd,
            "env": dict(self.env),
            "stdin": _pack(self.stdin),
            "stdin_open": self.stdin_open,
            "terminal": None
            if self.terminal is None
            else {"rows": self.terminal.rows, "columns": self.terminal.columns},
            "output_limit_bytes": output_limit_bytes,
        }


@dataclass(frozen=True, slots=True)
class CommandInput:
    """More for a command's standard input."""

    data: bytes
    close: bool = False
    """Nothing follows."""

    def to_text(self) -> str:
        """As it stands in the log, and as the guest is told; ASCII."""
        return json.dumps({"data": _pack(self.data), "close": self.close})

    @classmethod
    def from_text(cls, text: str) -> CommandInput:
        """The inverse of `to_text`."""
        fields = json.loads(text)
        return cls(_unpack(fields["data"]), fields["close"])


@dataclass(frozen=True, slots=True)
class CommandSignal:
    """A signal for a command."""

    number: int
    session: bool = False
    """For all that is in its session, and not only for its process group."""
    terminal: Terminal | None = None
    """The new size of its window, with SIGWINCH."""

    def to_text(self) -> str:
        """As it stands in the log; ASCII."""
        size = None if self.terminal is None else [self.terminal.rows, self.terminal.columns]
        return json.dumps({"number": self.number, "session": self.session, "terminal": size})

    @classmethod
    def from_text(cls, text: str) -> CommandSignal:
        """The inverse of `to_text`."""
        fields = json.loads(text)
        terminal = None if fields["terminal"] is None else Terminal(*fields["terminal"])
        return cls(fields["number"], fields["session"], terminal)

    def to_frame(self, seq: int) -> dict[str, Any]:
        """As the guest is told."""
        frame: dict[str, Any] = {"seq": seq, "signal": self.number, "session": self.session}
        if self.terminal is not None:
            frame |= {"rows": self.terminal.rows, "columns": self.terminal.columns}
        return frame


def _pack(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text)
