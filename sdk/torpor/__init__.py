"""Python machines that are always there.

>>> import torpor
>>> machine = torpor.Client().new_machine()
>>> machine.run("a = 3")
Result(seq=0, value=None, runtime_ms=1)
>>> machine.run("a + 5").value  # an hour, a restart of the server, or two years later
'8'
"""

from __future__ import annotations

from ._async_client import AsyncClient
from ._async_execution import AsyncExecution
from ._async_machine import AsyncMachine, AsyncRunStream
from ._async_machine_commands import AsyncCommand, AsyncCommands, AsyncCommandStream
from ._client import Client
from ._command_models import CommandInfo, CommandResult
from ._errors import (
    AliasTaken,
    ApiError,
    BodyTooLarge,
    CannotWake,
    CodeError,
    CommandFailed,
    CommandInputClosed,
    CommandInputFull,
    CommandNotFound,
    CommandNotRunning,
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
    TooManyCommands,
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
from ._machine_commands import Command, Commands, CommandStream
from ._models import ApiKey, Completion, Instruction, MachineInfo, NewApiKey, Point, Recovered, Rollback, Snapshot
from ._result import ErrorInfo, Result
from ._retry import RetryPolicy

__all__ = [
    "AliasTaken",
    "ApiError",
    "ApiKey",
    "AsyncClient",
    "AsyncCommand",
    "AsyncCommandStream",
    "AsyncCommands",
    "AsyncExecution",
    "AsyncMachine",
    "AsyncRunStream",
    "BodyTooLarge",
    "CannotWake",
    "Client",
    "CodeError",
    "Command",
    "CommandFailed",
    "CommandInfo",
    "CommandInputClosed",
    "CommandInputFull",
    "CommandNotFound",
    "CommandNotRunning",
    "CommandResult",
    "CommandStream",
    "Commands",
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
    "TooManyCommands",
    "TooManyUnfinished",
    "TorporError",
    "Unauthorized",
    "Unavailable",
    "UnknownApiError",
    "local",
]
