"""What E2B's code interpreter answers, with the same names."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._events import Display, Notice, Stderr, Stdout
from .._mime import mime_bundle
from .._result import ErrorInfo
from .._result import Result as OwnResult

_FIELDS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
}
"""MIME types, and what E2B calls them."""


@dataclass
class OutputMessage:
    """A piece of output while code runs."""

    line: str
    timestamp: int
    """Nanoseconds since 1970."""
    error: bool = False
    """Whether it came on standard error."""

    def __str__(self) -> str:
        return self.line


@dataclass
class ExecutionError:
    """The error that code ended in."""

    name: str
    value: str
    traceback: str

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(vars(self))


@dataclass
class Logs:
    """What code has printed."""

    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(vars(self))


@dataclass(repr=False)
class Result:
    """The value of a cell, or something that it displayed; binary forms in base64."""

    text: str | None = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    png: str | None = None
    jpeg: str | None = None
    pdf: str | None = None
    latex: str | None = None
    json: dict[str, Any] | None = None
    javascript: str | None = None
    data: dict[str, Any] | None = None
    chart: Any = None
    """Always None: charts are not taken apart."""
    is_main_result: bool = False
    extra: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def formats(self) -> list[str]:
        """Names of the forms that it has."""
        return [*(name for name in (*_FIELDS.values(), "data") if getattr(self, name)), *(self.extra or {})]

    def __repr__(self) -> str:
        return f"Result({self.text})" if self.text else f"Result(Formats: {', '.join(self.formats())})"

    def _repr_html_(self) -> str | None:
        return self.html

    def _repr_markdown_(self) -> str | None:
        return self.markdown

    def _repr_svg_(self) -> str | None:
        return self.svg

    def _repr_png_(self) -> str | None:
        return self.png

    def _repr_jpeg_(self) -> str | None:
        return self.jpeg

    def _repr_pdf_(self) -> str | None:
        return self.pdf

    def _repr_latex_(self) -> str | None:
        return self.latex

    def _repr_json_(self) -> dict[str, Any] | None:
        return self.json

    def _repr_javascript_(self) -> str | None:
        return self.javascript


@dataclass
class Execution:
    """What came of a cell."""

    results: list[Result] = field(default_factory=list)
    logs: Logs = field(default_factory=Logs)
    error: ExecutionError | None = None
    execution_count: int | None = None

    @property
    def text(self) -> str | None:
        """The value's text; None if there is none."""
        return next((result.text for result in self.results if result.is_main_result), None)

    def to_json(self) -> str:
        """All of it as JSON."""
        results = [{"text": each.text, **{name: each[name] for name in each.formats()}} for each in self.results]
        error = self.error and self.error.to_json()
        return json.dumps({"results": results, "logs": self.logs.to_json(), "error": error})


def result_of(bundle: Mapping[str, Any], *, is_main_result: bool = False) -> Result:
    """One `Result` of a MIME bundle."""
    known = {_FIELDS[kind]: form for kind, form in bundle.items() if kind in _FIELDS}
    extra = {kind: form for kind, form in bundle.items() if kind not in _FIELDS}
    return Result(**known, is_main_result=is_main_result, extra=extra or None)


def error_of(error: ErrorInfo) -> ExecutionError:
    """The error in E2B's form."""
    return ExecutionError(error.name, error.message, "\n".join(error.traceback))


def message_of(event: Stdout | Stderr) -> OutputMessage:
    """A piece of output in E2B's form."""
    return OutputMessage(event.text, time.time_ns(), isinstance(event, Stderr))


def notices_of(notices: Iterable[Notice]) -> list[str]:
    """What E2B has no words for, as lines on standard error."""
    return [f"[torpor] {notice.message}\n" for notice in notices]


def execution_of(result: OwnResult) -> Execution:
    """All that came of an instruction in E2B's form, its notices behind what it printed on standard error."""
    return Execution(
        results=list(_results(result)),
        logs=Logs(
            [event.text for event in result.events if isinstance(event, Stdout)],
            [event.text for event in result.events if isinstance(event, Stderr)] + notices_of(result.notices),
        ),
        error=None if result.error is None else error_of(result.error),
        execution_count=result.seq + 1,
    )


def _results(result: OwnResult) -> Iterator[Result]:
    yield from (result_of(display.data) for display in result.displays if isinstance(display, Display))
    if result.value is not None:
        yield result_of(mime_bundle(result.value, result.data), is_main_result=True)
