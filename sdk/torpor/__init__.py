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
    from ._async_machine import AsyncMachine
    from ._async_machine_commands import AsyncCommand, AsyncCommands, AsyncCommandStream
    from ._async_machine_files import AsyncFiles
    from ._async_machine_packages import AsyncPackages
    from ._async_run_stream import AsyncRunStream
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
        DiskFull,
        FileChanged,
        FileFailed,
        FileNotFound,
        FilePermissionDenied,
        FilesUnsupported,
        FolderNotEmpty,
        IdempotencyKeyReused,
        InstructionExpired,
        InstructionNotFound,
        InstructionNotRunning,
        InternalError,
        InvalidArchive,
        InvalidPath,
        InvalidRequest,
        IsAFolder,
        KeyNotFound,
        LastKey,
        MachineBusy,
        MachineNotFound,
        MachineNotIdle,
        MachineNotParked,
        MachineParked,
        MethodNotAllowed,
        NotAFile,
        NotAFolder,
        NotFinished,
        NotFound,
        PackagesNotInstalled,
        PointUnreachable,
        ProtocolError,
        RangeNotSatisfiable,
        RuntimeQuarantined,
        SaveFailed,
        ServerUnreachable,
        ShuttingDown,
        SnapshotNotFound,
        StdinClosed,
        StdinFull,
        StorageFull,
        TooManyCommands,
        TooManyUnfinished,
        TorporError,
        TransferInterrupted,
        Unauthorized,
        Unavailable,
        UnknownApiError,
    )
    from ._events import Display, Error, Event, Finished, InputRequest, Notice, Stderr, Stdout
    from ._execution import Execution
    from ._file_models import FileInfo
    from ._forked import Forked
    from ._local import local
    from ._machine import Machine
    from ._machine_commands import Command, Commands, CommandStream
    from ._machine_files import Files
    from ._machine_packages import Packages
    from ._models import ApiKey, Completion, Instruction, MachineInfo, NewApiKey, Point, Recovered, Rollback, Snapshot
    from ._package_models import Installed, Package
    from ._result import ErrorInfo, Result
    from ._retry import RetryPolicy
    from ._run_stream import RunStream

__all__ = [
    "AliasTaken",
    "ApiError",
    "ApiKey",
    "AsyncClient",
    "AsyncCommand",
    "AsyncCommandStream",
    "AsyncCommands",
    "AsyncExecution",
    "AsyncFiles",
    "AsyncMachine",
    "AsyncPackages",
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
    "DiskFull",
    "Display",
    "Error",
    "ErrorInfo",
    "Event",
    "Execution",
    "FileChanged",
    "FileFailed",
    "FileInfo",
    "FileNotFound",
    "FilePermissionDenied",
    "Files",
    "FilesUnsupported",
    "Finished",
    "FolderNotEmpty",
    "Forked",
    "IdempotencyKeyReused",
    "InputRequest",
    "Installed",
    "Instruction",
    "InstructionExpired",
    "InstructionNotFound",
    "InstructionNotRunning",
    "InternalError",
    "InvalidArchive",
    "InvalidPath",
    "InvalidRequest",
    "IsAFolder",
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
    "NotAFile",
    "NotAFolder",
    "NotFinished",
    "NotFound",
    "Notice",
    "Package",
    "Packages",
    "PackagesNotInstalled",
    "Point",
    "PointUnreachable",
    "ProtocolError",
    "RangeNotSatisfiable",
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
    "StdinClosed",
    "StdinFull",
    "Stdout",
    "StorageFull",
    "TooManyCommands",
    "TooManyUnfinished",
    "TorporError",
    "TransferInterrupted",
    "Unauthorized",
    "Unavailable",
    "UnknownApiError",
    "local",
]

_HOMES = (
    "_async_client",
    "_async_execution",
    "_async_machine",
    "_async_machine_commands",
    "_async_machine_files",
    "_async_machine_packages",
    "_async_run_stream",
    "_client",
    "_command_models",
    "_errors",
    "_events",
    "_file_models",
    "_execution",
    "_forked",
    "_local",
    "_machine",
    "_machine_commands",
    "_machine_files",
    "_machine_packages",
    "_models",
    "_package_models",
    "_result",
    "_retry",
    "_run_stream",
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
