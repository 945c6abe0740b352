"""Results, machines and history as JSON. Pure."""

from __future__ import annotations

import shlex
import signal
from datetime import UTC, datetime
from typing import Any

from torpor_api.events import notice_json
from torpor_api.ledger import InstructionRow, MachineRow, RolledBack, SnapshotRow
from torpor_worker.command import CommandSpec
from torpor_worker.ledger import EndedBy, EntryKind, InstructionResult

SHORT_NAMES = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/svg+xml": "svg",
    "text/html": "html",
    "text/markdown": "markdown",
    "text/latex": "latex",
    "application/json": "json",
    "application/pdf": "pdf",
}
"""`data.png` is what ForeverVM's clients read; other types are named in the same way, or by their MIME type."""

STATES = {"accepted": "waiting", "started": "running", "finished": "finished"}


def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def exec_result(result: InstructionResult, shown_png: str | None = None) -> dict[str, Any]:
    """Part 1's `ExecResult`: the value form has no `error`, the error form no `value`.

    `shown_png` is the last picture that the instruction showed: part 1 has no other place for it than `data.png`.
    """
    if result.error is not None:
        return {"error": result.error, "runtime_ms": result.runtime_ms}
    answer: dict[str, Any] = {"value": result.value}
    data = {SHORT_NAMES.get(kind, kind): value for kind, value in result.data.items() if kind != "text/plain"}
    if shown_png is not None:
        data.setdefault("png", shown_png)
    if data:
        answer["data"] = data
    answer["runtime_ms"] = result.runtime_ms
    return answer


def rich_result(result: InstructionResult) -> dict[str, Any]:
    """`ExecResult` with `error_detail` where there was an error."""
    answer = exec_result(result)
    if result.error_detail is not None:
        answer["error_detail"] = result.error_detail
    return answer


def timings(row: InstructionRow, *, with_wake: bool = False) -> dict[str, Any]:
    """How long a finished instruction waited, ran, and took altogether, in milliseconds.

    With `wake`, if that is wanted: each phase of the wake that it waited for, null if it did for none.
    """
    wake = {"wake": row.result.wake_ms if row.result else None} if with_wake else {}
    return {
        "waited_ms": _milliseconds(row.accepted_at, row.started_at),
        "runtime_ms": row.result.runtime_ms if row.result else None,
        "total_ms": _milliseconds(row.accepted_at, row.finished_at),
        "waited_for_save_ms": row.waited_for_save_ms,
        **wake,
    }


def _milliseconds(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else max(0, round((end - start).total_seconds() * 1000))


def machine_json(row: MachineRow) -> dict[str, Any]:
    """Part 1's `Machine`, and what Torpor adds to it."""
    return {
        "name": row.name,
        "alias": row.alias,
        "created_at": moment(row.created_at),
        "running": row.state == "awake",
        "has_pending_instruction": row.has_pending_instruction,
        "expires_at": None,
        "tags": row.tags,
        "state": row.state,
        "template": row.template,
        "memory_mb": row.memory_mb,
        "idle_seconds": row.idle_seconds,
        "durability": row.durability.value,
        "recovery": row.recovery.value,
        "replay_seconds": row.replay_seconds,
        "last_used_at": moment(row.last_used_at),
        "generation": row.generation,
        "stored_bytes": row.stored_bytes,
        "parked_reason": row.parked_reason,
    }


def machine_detail(row: MachineRow) -> dict[str, Any]:
    """A machine with its notices, and where its last rollback can be taken back to."""
    undo = None if row.undo is None else {"generation": row.undo}
    return {
        **machine_json(row),
        "undo": undo,
        "lost_before": row.lost_before,
        "notices": [notice_json(notice) for notice in row.notices],
    }


def snapshot_json(row: SnapshotRow) -> dict[str, Any]:
    """A snapshot in a list."""
    snapshot = row.snapshot
    return {
        "generation": snapshot.generation,
        "line": snapshot.line,
        "parent": snapshot.parent,
        "created_at": moment(snapshot.created_at),
        "seq": row.seq,
        "position": snapshot.position,
        "quiescent": snapshot.quiescent,
        "image_bytes": snapshot.image_bytes,
        "stored_bytes": snapshot.stored_bytes,
        "pinned": snapshot.pinned,
        "current": row.current,
        "set_aside": snapshot.set_aside,
    }


def rollback_json(machine: str, done: RolledBack) -> dict[str, Any]:
    """What a rollback did."""
    return {
        "machine_name": machine,
        "generation": done.generation,
        "line": done.line,
        "undo": None if done.undo is None else {"generation": done.undo},
        "left_behind": done.left_behind,
        "replayed": done.replayed,
    }


def signal_name(number: int | None) -> str | None:
    """`SIGTERM`; a number that has no name is written as it is."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def ending_json(row: InstructionRow) -> dict[str, Any]:
    """How a command ended; all null, or false, while it has not."""
    how = row.result.exit if row.result is not None else None
    return {
        "exit_code": None if how is None else how.code,
        "signal": None if how is None else signal_name(how.signal),
        "timed_out": row.ended_by is EndedBy.TIMEOUT,
        "error": None if row.result is None else row.result.error,
    }


def command_json(row: InstructionRow) -> dict[str, Any]:
    """A command in a list."""
    spec = CommandSpec.from_text(row.code) if row.code else None
    return {
        "seq": row.seq,
        "command": None if spec is None else spec.command if isinstance(spec.command, str) else list(spec.command),
        "cwd": None if spec is None else spec.cwd,
        "env": {} if spec is None else dict(spec.env),
        "pty": spec is not None and spec.terminal is not None,
        "background": row.background,
        "timeout_seconds": row.timeout_seconds or None,
        "state": STATES[row.status],
        **ending_json(row),
        "attempt": row.attempt,
        "undone": row.undone,
        "rolled_back": row.rolled_back,
        "replayed": row.replayed,
        "expired": row.expired,
        "accepted_at": moment(row.accepted_at),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
        "timings": timings(row),
    }


def _code(row: InstructionRow) -> str:
    """What ran, as one would write it: of a command its line."""
    if row.kind is not EntryKind.COMMAND or not row.code:
        return row.code
    command = CommandSpec.from_text(row.code).command
    return command if isinstance(command, str) else shlex.join(command)


def instruction_json(row: InstructionRow) -> dict[str, Any]:
    """One line of a machine's history."""
    return {
        "instruction_seq": row.seq,
        "kind": "command" if row.kind is EntryKind.COMMAND else "instruction",
        "code": _code(row),
        "stdin": row.stdin,
        "timeout_seconds": row.timeout_seconds,
        "state": STATES[row.status],
        "result": None if row.result is None else rich_result(row.result),
        "attempt": row.attempt,
        "undone": row.undone,
        "rolled_back": row.rolled_back,
        "replayed": row.replayed,
        "expired": row.expired,
        "output_expired": row.output_expired,
        "ended_by": None if row.ended_by is None else row.ended_by.value,
        "accepted_at": moment(row.accepted_at),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
        "timings": timings(row, with_wake=True),
    }
