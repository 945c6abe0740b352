"""A machine as a plain function: what any framework can make a tool of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .._async_machine import AsyncMachine
from .._machine import Machine
from ._python import PythonTool
from ._words import DESCRIPTION

_DOCSTRING = f"""{DESCRIPTION}

Args:
    code: Python code. The value of its last expression is shown.
    timeout_seconds: After so much running time it is ended, and everything else stays.
"""


def callable_of(machine: Machine) -> Callable[..., str]:
    """A function `python(code, timeout_seconds=15)` that runs code on the machine and returns what a model reads."""
    tool = PythonTool(machine)

    def python(code: str, timeout_seconds: float = 15.0) -> str:
        return tool.call({"code": code, "timeout_seconds": timeout_seconds}).text

    python.__doc__ = _DOCSTRING
    return python


def async_callable_of(machine: AsyncMachine) -> Callable[..., Awaitable[str]]:
    """The asynchronous twin."""
    tool = PythonTool(machine)

    async def python(code: str, timeout_seconds: float = 15.0) -> str:
        return (await tool.acall({"code": code, "timeout_seconds": timeout_seconds})).text

    python.__doc__ = _DOCSTRING
    return python
