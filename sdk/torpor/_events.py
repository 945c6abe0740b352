"""What an instruction says while it runs: output, displays, its result, in the order in which they happened."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ._errors import ProtocolError


@dataclass(frozen=True)
class Stdout:
    """Text on standard output, as it came: partial lines and carriage returns included."""

    text: str
    id: str | None = None
    background: bool = False
    """Whether it came after the result, from a thread, a task or a child."""
    type: Literal["stdout"] = "stdout"


@dataclass(frozen=True)
class Stderr:
    """Text on standard error, as it came."""

    text: str
    id: str | None = None
    background: bool = False
    type: Literal["stderr"] = "stderr"


@dataclass(frozen=True)
class Display:
    """Rich output: the same thing in several forms, by MIME type; binary ones in base64."""

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    background: bool = False
    type: Literal["display"] = "display"

    @property
    def png(self) -> bytes | None:
        """The picture, if it has one as PNG."""
        return png_of(self.data)

    def __repr__(self) -> str:
        return f"Display({', '.join(self.data)})"


@dataclass(frozen=True)
class Error:
    """The code ended in an error; the result follows."""

    name: str
    message: str
    traceback: tuple[str, ...] = ()
    id: str | None = None
    type: Literal["error"] = "error"


@dataclass(frozen=True)
class Notice:
    """Something to know: the machine was recovered, a save fails, output was cut or begins anew."""

    code: str
    message: str
    seqs: tuple[int, ...] = ()
    at: str | None = None
    truncated_bytes: int = 0
    """How much output is not kept, where that is what there is to know."""
    id: str | int | None = None
    type: Literal["notice"] = "notice"


@dataclass(frozen=True)
class Finished:
    """It is finished. `result` holds `value` or `error`, `data`, `error_detail`, `runtime_ms`, as stored."""

    result: dict[str, Any]
    timings: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    """Of a command."""
    signal: str | None = None
    """Of a command: the name of the one that ended it."""
    timed_out: bool = False
    id: str | None = None
    type: Literal["result"] = "result"


@dataclass(frozen=True)
class InputRequest:
    """The code waits for a line to be sent, as `input()` and `getpass()` do. Only of code run with `stdin_open`."""

    prompt: str = ""
    """What is asked; it was printed too."""
    password: bool = False
    """Whether nobody should see the answer."""
    read_bytes: int = 0
    """How much the code has read so far, in bytes of UTF-8."""
    id: str | None = None
    type: Literal["input_request"] = "input_request"


Event = Stdout | Stderr | Display | Error | Notice | InputRequest | Finished
"""Any of them; `event.type` tells which, and so does `match`."""

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])
_TYPES = frozenset({"stdout", "stderr", "display", "error", "notice", "input_request", "result"})


def parse_event(fields: Mapping[str, object]) -> Event | None:
    """The event that a line of a stream holds; None for a type that this version does not know.

    Raises `ProtocolError` if a field is missing or has a wrong type.
    """
    if fields.get("type") not in _TYPES:
        return None
    try:
        return _EVENT.validate_python(fields)
    except ValidationError as error:
        raise ProtocolError(f"An event of the stream is malformed: {error.errors()[0]['msg']}.") from error


def png_of(bundle: Mapping[str, Any]) -> bytes | None:
    """The PNG in a MIME bundle, decoded. ForeverVM's wire calls it `png`."""
    text = bundle.get("image/png", bundle.get("png"))
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return None
