"""A machine as a plain function: what any framework can make a tool of."""

from __future__ import annotations

from typing import Any, Protocol, cast

from .._async_machine import AsyncMachine
from .._machine import Machine
from ._python import PythonTool
from ._words import DESCRIPTION, PARAMETERS

_DOCSTRING = f"""{DESCRIPTION}

Args:
    code: Python code. The value of its last expression is shown.
    timeout_seconds: After so much running time it is ended, and everything else stays; 15 by default.
"""


class PythonFunction(Protocol):
    """What `Machine.tool` returns: a plain function `python`, with a docstring for a model."""

    __name__: str
    parameters: dict[str, Any]
    """JSON schema of its arguments, as strict schemas have it: each is named, and null means the default."""

    def __call__(self, code: str, timeout_seconds: float | None = None) -> str:
        """Run code on the machine; what a model should read."""
        ...


class AsyncPythonFunction(Protocol):
    """What `AsyncMachine.tool` returns; the same, awaited."""

    __name__: str
    parameters: dict[str, Any]

    async def __call__(self, code: str, timeout_seconds: float | None = None) -> str:
        """Run code on the machine; what a model should read."""
        ...


def callable_of(machine: Machine) -> PythonFunction:
    """A function that runs code on the machine."""
    tool = PythonTool(machine)

    def python(code: str, timeout_seconds: float | None = None) -> str:
        return tool.call({"code": code, "timeout_seconds": timeout_seconds}).text

    function = cast("PythonFunction", python)
    function.__doc__, function.parameters = _DOCSTRING, PARAMETERS
    return function


def async_callable_of(machine: AsyncMachine) -> AsyncPythonFunction:
    """The asynchronous twin."""
    tool = PythonTool(machine)

    async def python(code: str, timeout_seconds: float | None = None) -> str:
        return (await tool.acall({"code": code, "timeout_seconds": timeout_seconds})).text

    function = cast("AsyncPythonFunction", python)
    function.__doc__, function.parameters = _DOCSTRING, PARAMETERS
    return function
