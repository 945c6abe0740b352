"""How a command ended, as the Agents SDK says it."""

from __future__ import annotations

from agents.sandbox.types import ExecResult

from ..._command_models import CommandResult
from ..._reading import notices_text
from .._exit_codes import exit_code_of

_NOT_BEGUN = 127


def exec_result(result: CommandResult) -> ExecResult:
    """Both outputs, with what kept the command from beginning on stderr."""
    return ExecResult(
        stdout=_bytes(result.stdout),
        stderr=said_beside(result) + _bytes(result.stderr),
        exit_code=number_of(result),
    )


def number_of(result: CommandResult) -> int:
    """As a shell has it: 128 and more for a signal, 127 for what could not begin."""
    exit_code = exit_code_of(result)
    return _NOT_BEGUN if exit_code is None else exit_code


def said_beside(result: CommandResult) -> bytes:
    """Notices of the machine, how much is not kept of what it said, and why there is no exit code."""
    lines = []
    if result.truncated_bytes:
        lines.append(f"[{result.truncated_bytes} bytes more than are kept: send them to a file]")
    if result.exit_code is None and result.error is not None:
        lines.append(result.error)
    return _bytes(notices_text(result.notices) + "".join(f"{line}\n" for line in lines))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
