"""What is answered for an instruction, from what the guest said or did not say."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from torpor_worker.instruction import Running
from torpor_worker.ledger import EndedBy, Exit, InstructionResult
from torpor_worker.sandbox import CommandEnded, Result


def answered(result: Result, running: Running) -> InstructionResult:
    """The guest's result, with the steps that ended it if any were taken."""
    if running.ended_by is EndedBy.TIMEOUT:
        return timed_out(running, result.runtime_ms, traceback=(result.error or {}).get("traceback", []))
    if result.error is None:
        return InstructionResult(
            value=result.value, data=result.data, error=None, error_detail=None, runtime_ms=result.runtime_ms
        )
    detail: dict[str, Any] = dict(result.error)
    if running.steps:
        detail["steps"] = running.step_names
    return InstructionResult(
        value=None, data={}, error=_text(detail), error_detail=detail, runtime_ms=result.runtime_ms
    )


def timed_out(running: Running, runtime_ms: int, *, traceback: list[str], lost: str = "") -> InstructionResult:
    """The error of an instruction that was ended by its time-out."""
    message = f"Timed out after {running.entry.timeout_seconds:g} s{lost}"
    detail = {"name": "TimeoutError", "message": message, "traceback": traceback, "steps": running.step_names}
    return InstructionResult(value=None, data={}, error=message, error_detail=detail, runtime_ms=runtime_ms)


def command_ended(ended: CommandEnded, running: Running) -> InstructionResult:
    """The result of a command: an error unless it ended by itself, and with 0."""
    how = Exit(ended.exit_code, ended.signal)
    if running.ended_by is EndedBy.TIMEOUT and running.steps:
        return replace(timed_out(running, ended.runtime_ms, traceback=[]), exit=how)
    if ended.exit_code == 0:
        return InstructionResult(None, {}, None, None, ended.runtime_ms, exit=how)
    message = f"exit status {ended.exit_code}" if ended.signal is None else _by_signal(ended.signal)
    if ended.reason is not None:
        message = f"{message}: {ended.reason}"
    detail: dict[str, Any] = {"name": "CommandFailed", "message": message, "traceback": []}
    return InstructionResult(None, {}, _text(detail), detail, ended.runtime_ms, exit=how)


def unsupported() -> InstructionResult:
    """The error of a command on a machine that cannot run any."""
    message = (
        "the agent in this machine is of a version that knows no commands, and cannot be replaced; "
        "run the command from an instruction instead, with subprocess or `!`"
    )
    detail = {"name": "CommandsUnsupported", "message": message, "traceback": []}
    return InstructionResult(None, {}, _text(detail), detail, 0)


def _by_signal(number: int) -> str:
    try:
        return f"killed by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"killed by signal {number}"


def died(running: Running, reason: str, now: float) -> InstructionResult:
    """The error of an instruction during which its process died, which is undone with it."""
    runtime_ms = round(running.used_seconds(now) * 1000)
    lost = "; it did not stop when interrupted, so its process was ended and the machine was brought back without it"
    if running.ended_by is EndedBy.TIMEOUT:
        return timed_out(running, runtime_ms, traceback=[], lost=lost)
    if running.ended_by is EndedBy.INTERRUPT:
        return _failed("KeyboardInterrupt", f"interrupted{lost}", running, runtime_ms)
    return _failed(
        "ProcessDied",
        f"the machine's process ended while this ran ({reason}); the machine was brought back as it was before",
        running,
        runtime_ms,
    )


def given_up(running: Running, attempts: int) -> InstructionResult:
    """The error of an instruction that is not tried again."""
    message = f"not finished: its process ended in each of {attempts} attempts, so it was undone"
    return _failed("ProcessDied", message, running, 0)


def forgone(why: str) -> InstructionResult:
    """The error of an instruction that was running when the process died, and is not run again."""
    message = f"the machine's process ended while this ran, and it is not run again: {why}"
    detail = {"name": "ProcessDied", "message": message, "traceback": []}
    return InstructionResult(value=None, data={}, error=_text(detail), error_detail=detail, runtime_ms=0)


def same(first: InstructionResult, again: InstructionResult) -> bool:
    """Whether a re-execution gave the same answer; how long it took does not matter."""
    return (first.value, first.data, first.error, first.exit) == (again.value, again.data, again.error, again.exit)


def _failed(name: str, message: str, running: Running, runtime_ms: int) -> InstructionResult:
    detail: dict[str, Any] = {"name": name, "message": message, "traceback": []}
    if running.steps:
        detail["steps"] = running.step_names
    return InstructionResult(value=None, data={}, error=_text(detail), error_detail=detail, runtime_ms=runtime_ms)


def _text(detail: dict[str, Any]) -> str:
    name, message = str(detail.get("name", "Error")), str(detail.get("message", ""))
    return f"{name}: {message}" if message else name
