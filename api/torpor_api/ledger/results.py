"""An instruction's result between its row and its value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torpor_worker.ledger import Exit, InstructionResult

LONGEST_MS = 2**53


@dataclass(frozen=True, slots=True)
class ResultColumns:
    """A result as its columns hold it."""

    value: str | None
    data: str | None
    error: str | None
    error_detail: str | None
    runtime_ms: int
    wake: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None


def to_columns(result: InstructionResult) -> ResultColumns:
    """The columns of a result; what a text column cannot hold (lone surrogates) is escaped."""
    return ResultColumns(
        value=storable(result.value) if result.error is None else None,
        data=json.dumps(result.data) if result.data else None,
        error=storable(result.error),
        error_detail=None if result.error_detail is None else json.dumps(result.error_detail),
        runtime_ms=min(max(0, result.runtime_ms), LONGEST_MS),
        wake=None if result.wake_ms is None else json.dumps(result.wake_ms),
        exit_code=None if result.exit is None else result.exit.code,
        exit_signal=None if result.exit is None else result.exit.signal,
    )


def from_columns(
    value: Any,
    data: Any,
    error: Any,
    error_detail: Any,
    runtime_ms: Any,
    exit_code: Any = None,
    exit_signal: Any = None,
    wake: Any = None,
) -> InstructionResult:
    """The result that the columns of a finished instruction or command hold."""
    return InstructionResult(
        value=value,
        data=json.loads(data) if data is not None else {},
        error=error,
        error_detail=json.loads(error_detail) if error_detail is not None else None,
        runtime_ms=runtime_ms,
        wake_ms=None if wake is None else json.loads(wake),
        exit=None if exit_code is None and exit_signal is None else Exit(exit_code, exit_signal),
    )


def failure(name: str, message: str) -> ResultColumns:
    """The columns of an error that came from the host, not from user code."""
    text = storable(message)
    return to_columns(
        InstructionResult(None, {}, f"{name}: {text}", {"name": name, "message": text, "traceback": []}, 0)
    )


def storable(text: str | None) -> str | None:
    """The text, with lone surrogates written as escapes."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
