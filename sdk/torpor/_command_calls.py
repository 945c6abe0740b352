"""What is asked of the server about commands, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ._calls import QUIET_STREAM_SECONDS, Call, _get, _machine, _post, answer_seconds, asked_timeout


def execute(machine: str, body: Mapping[str, Any], *, streamed: bool, idempotency_key: str | None) -> Call:
    """A command, to be answered when it has ended, with its events, or at once if it is in the background."""
    timeout_seconds = body.get("timeout_seconds")
    call = _post(
        _machine(machine, "/commands"),
        {**body, "timeout_seconds": asked_timeout(timeout_seconds)},
        answer_seconds=QUIET_STREAM_SECONDS if streamed else answer_seconds(timeout_seconds),
        patient=True,
        streamed=streamed,
    )
    return call if idempotency_key is None else replace(call, idempotency_key=idempotency_key)


def commands(machine: str, limit: int | None, cursor: str | None) -> Call:
    """A page of a machine's commands."""
    return _get(_machine(machine, "/commands"), {"limit": limit, "cursor": cursor})


def feed(machine: str, seq: int, body: Mapping[str, Any]) -> Call:
    """Input for a command."""
    return _post(_machine(machine, f"/commands/{seq}/stdin"), body)


def signal(machine: str, seq: int, name: str | int) -> Call:
    """A signal for a command."""
    return _post(_machine(machine, f"/commands/{seq}/signal"), {"signal": name})


def resize(machine: str, seq: int, rows: int, columns: int) -> Call:
    """Another size for a command's terminal."""
    return _post(_machine(machine, f"/commands/{seq}/resize"), {"rows": rows, "columns": columns})
