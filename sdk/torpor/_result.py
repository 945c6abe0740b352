"""What came of an instruction."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._errors import CodeError, ProtocolError
from ._events import Display, Error, Event, Finished, Notice, Stderr, Stdout, parse_event, png_of
from ._mime import mime_bundle
from ._models import RunAnswer
from ._reading import text_of

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class ErrorInfo:
    """The error that the code ended in."""

    name: str
    """Of its class, such as `ZeroDivisionError`."""
    message: str
    traceback: tuple[str, ...] = ()
    """Lines that show the code that was run."""
    steps: tuple[str, ...] = ()
    """What was done to end it, after a time-out or an interrupt."""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


@dataclass(frozen=True)
class Result:
    r"""What came of an instruction: its value or its error, and all that it showed.

    >>> result = machine.run("print('adding'); 3 + 5")
    >>> result.value, result.stdout
    ('8', 'adding\n')
    """

    machine_name: str
    seq: int
    """The instruction's number on its machine, from 0."""
    value: str | None
    """The `repr` of the last expression; None for a statement or an error."""
    error: ErrorInfo | None
    stdout: str
    stderr: str
    displays: tuple[Display, ...]
    """Pictures, tables and whatever else was displayed, in order."""
    data: Mapping[str, Any]
    """The value in other forms, by MIME type."""
    notices: tuple[Notice, ...]
    """What its users should know about the machine, such as a recovery."""
    runtime_ms: int
    events: tuple[Event, ...] = field(default=(), repr=False)
    """All of it in order of appearance."""
    timings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the code ended without an error."""
        return self.error is None

    @property
    def png(self) -> bytes | None:
        """The first picture that was displayed, or the value's, as the bytes of a PNG file; None if there is none."""
        pictures = (picture for display in self.displays if (picture := display.png) is not None)
        return next(pictures, None) or png_of(self.data)

    @property
    def text(self) -> str:
        """What a language model should read: output, value or error, notices; the middle of what is long is left out.

        >>> print(machine.run("print('adding'); 3 + 5").text)
        adding
        8
        """
        return text_of(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Show itself in a notebook as the value that it holds, or the first figure."""
        bundle = mime_bundle(self.text, {} if self.value is None else self.data)
        if "image/png" not in bundle and (picture := self.png) is not None:
            bundle["image/png"] = base64.b64encode(picture).decode("ascii")
        return bundle

    def raise_for_error(self) -> Result:
        """Raise `CodeError` if the code ended in an error; itself otherwise.

        >>> machine.run("1 / 0").raise_for_error()
        Traceback (most recent call last):
        torpor.CodeError: ZeroDivisionError: division by zero
        """
        if self.error is not None:
            raise CodeError(self, self.error)
        return self

    def __repr__(self) -> str:
        parts = [f"seq={self.seq}"]
        parts.append(f"error={_short(str(self.error))}" if self.error else f"value={_short(self.value)}")
        parts += [f"{name}={_short(text)}" for name in ("stdout", "stderr") if (text := getattr(self, name))]
        if self.displays:
            parts.append(f"displays={len(self.displays)}")
        if self.notices:
            parts.append(f"notices={[notice.code for notice in self.notices]}")
        return f"Result({', '.join(parts)}, runtime_ms={self.runtime_ms})"


def _short(text: str | None) -> str:
    if text is None or len(text) <= _SHOWN_CHARACTERS:
        return repr(text)
    return repr(text[: _SHOWN_CHARACTERS - 1] + "…")


def make_result(
    machine_name: str,
    seq: int,
    stored: Mapping[str, Any],
    events: Iterable[Event],
    *,
    notices: Iterable[Notice] = (),
    timings: Mapping[str, Any] | None = None,
) -> Result:
    """A `Result` of what the server stores (see `Finished`) and the events."""
    events = tuple(events)
    told = {notice.id: notice for notice in notices}
    told |= {event.id: event for event in events if isinstance(event, Notice)}
    return Result(
        machine_name=machine_name,
        seq=seq,
        value=stored.get("value"),
        error=_error_info(stored, events),
        stdout="".join(event.text for event in events if isinstance(event, Stdout)),
        stderr="".join(event.text for event in events if isinstance(event, Stderr)),
        displays=tuple(event for event in events if isinstance(event, Display)),
        data=stored.get("data") or {},
        notices=tuple(told.values()),
        runtime_ms=stored.get("runtime_ms") or 0,
        events=tuple(event for event in events if not isinstance(event, Finished)),
        timings=timings or {},
    )


def result_of_answer(answer: RunAnswer, machine_name: str | None = None) -> Result:
    """The `Result` in the answer to code that ran in one round trip; the answer names the machine if it is new."""
    events = [event for fields in answer.events if (event := parse_event(fields)) is not None]
    name = answer.machine_name or machine_name
    if name is None:
        raise ProtocolError("The answer does not name its machine.")
    return make_result(
        name, answer.instruction_seq, answer.result, events, notices=answer.notices, timings=answer.timings
    )


def _error_info(stored: Mapping[str, Any], events: Iterable[Event]) -> ErrorInfo | None:
    text = stored.get("error")
    if text is None:
        return None
    detail = stored.get("error_detail") or {}
    event = next((event for event in events if isinstance(event, Error)), None)
    name, _, message = str(text).partition(": ")
    return ErrorInfo(
        name=detail.get("name") or (event.name if event else name),
        message=detail.get("message", event.message if event else message),
        traceback=tuple(detail.get("traceback") or (event.traceback if event else ())),
        steps=tuple(detail.get("steps") or ()),
    )
