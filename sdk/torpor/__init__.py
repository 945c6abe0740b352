"""Python machines that are always there.

>>> import torpor
>>> machine = torpor.Client().new_machine()
>>> machine.run("a = 3")
Result(seq=0, value=None, runtime_ms=1)
>>> machine.run("a + 5").value  # an hour, a restart of the server, or two years later
'8'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._async_client import AsyncClient
    from ._async_execution import AsyncExecution
    from ._async_machine import AsyncMachine, AsyncRunStream
    from ._client import Client
    from ._errors import (
        AliasTaken,
        ApiError,
        BodyTooLarge,
        CannotWake,
        CodeError,
        ConfigError,
        Conflict,
        IdempotencyKeyReused,
        InstructionExpired,
        InstructionNotFound,
        InternalError,
        InvalidRequest,
        KeyNotFound,
        LastKey,
        MachineBusy,
        MachineNotFound,
        MachineNotIdle,
        MachineNotParked,
        MachineParked,
        MethodNotAllowed,
        NotFound,
        PointUnreachable,
        ProtocolError,
        RuntimeQuarantined,
        SaveFailed,
        ServerUnreachable,
        ShuttingDown,
        SnapshotNotFound,
        TooManyUnfinished,
        TorporError,
        Unauthorized,
        Unavailable,
        UnknownApiError,
    )
    from ._events import Display, Error, Event, Finished, Notice, Stderr, Stdout
    from ._execution import Execution
    from ._forked import Forked
    from ._local import local
    from ._machine import Machine, RunStream
    from ._models import ApiKey, Completion, Instruction, MachineInfo, NewApiKey, Point, Recovered, Rollback, Snapshot
    from ._result import ErrorInfo, Result
    from ._retry import RetryPolicy

__all__ = [
    "AliasTaken",
    "ApiError",
    "ApiKey",
    "AsyncClient",
    "AsyncExecution",
    "AsyncMachine",
    "AsyncRunStream",
    "BodyTooLarge",
    "CannotWake",
    "Client",
    "CodeError",
    "Completion",
    "ConfigError",
    "Conflict",
    "Display",
    "Error",
    "ErrorInfo",
    "Event",
    "Execution",
    "Finished",
    "Forked",
    "IdempotencyKeyReused",
    "Instruction",
    "InstructionExpired",
    "InstructionNotFound",
    "InternalError",
    "InvalidRequest",
    "KeyNotFound",
    "LastKey",
    "Machine",
    "MachineBusy",
    "MachineInfo",
    "MachineNotFound",
    "MachineNotIdle",
    "MachineNotParked",
    "MachineParked",
    "MethodNotAllowed",
    "NewApiKey",
    "NotFound",
    "Notice",
    "Point",
    "PointUnreachable",
    "ProtocolError",
    "Recovered",
    "Result",
    "RetryPolicy",
    "Rollback",
    "RunStream",
    "RuntimeQuarantined",
    "SaveFailed",
    "ServerUnreachable",
    "ShuttingDown",
    "Snapshot",
    "SnapshotNotFound",
    "Stderr",
    "Stdout",
    "TooManyUnfinished",
    "TorporError",
    "Unauthorized",
    "Unavailable",
    "UnknownApiError",
    "local",
]

_HOMES = (
    "_async_client",
    "_async_execution",
    "_async_machine",
    "_client",
    "_errors",
    "_events",
    "_execution",
    "_forked",
    "_local",
    "_machine",
    "_models",
    "_result",
    "_retry",
)
"""Where all of that is. It is imported when it is first asked for: the command line needs little of it to start."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for home in _HOMES:
        found = getattr(import_module(f".{home}", __name__), name, None)
        if found is not None:
            globals()[name] = found
            return found
    raise AttributeError(f"{name!r} is in none of {_HOMES}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
