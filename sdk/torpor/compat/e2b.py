"""E2B's code interpreter on machines that are always there: change one import.

    from torpor.compat.e2b import Sandbox        # instead of: from e2b_code_interpreter import Sandbox

`AsyncSandbox` is its asynchronous class likewise. The guide `docs/guides/e2b.md` says what differs.
"""

from __future__ import annotations

from .e2b_async import AsyncSandbox
from .e2b_async_commands import AsyncCommandHandle, AsyncCommands
from .e2b_async_files import AsyncFilesystem, AsyncWriteEntry
from .e2b_command_models import CommandExitException, CommandResult, ProcessInfo
from .e2b_commands import CommandHandle, Commands
from .e2b_errors import (
    FileNotFoundException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)
from .e2b_file_models import EntryInfo, FileType, WriteEntry, WriteInfo
from .e2b_files import Filesystem
from .e2b_pages import AsyncSandboxPaginator, AsyncSnapshotPaginator, SandboxPaginator, SnapshotPaginator
from .e2b_results import Execution, ExecutionError, Logs, OutputMessage, Result
from .e2b_sandbox import Sandbox
from .e2b_sandbox_models import SandboxInfo, SandboxQuery, SandboxState, SnapshotInfo

__all__ = [
    "AsyncCommandHandle",
    "AsyncCommands",
    "AsyncFilesystem",
    "AsyncSandbox",
    "AsyncSandboxPaginator",
    "AsyncSnapshotPaginator",
    "AsyncWriteEntry",
    "CommandExitException",
    "CommandHandle",
    "CommandResult",
    "Commands",
    "EntryInfo",
    "Execution",
    "ExecutionError",
    "FileNotFoundException",
    "FileType",
    "Filesystem",
    "InvalidArgumentException",
    "Logs",
    "NotEnoughSpaceException",
    "NotFoundException",
    "OutputMessage",
    "ProcessInfo",
    "Result",
    "Sandbox",
    "SandboxException",
    "SandboxInfo",
    "SandboxPaginator",
    "SandboxQuery",
    "SandboxState",
    "SnapshotInfo",
    "SnapshotPaginator",
    "TimeoutException",
    "WriteEntry",
    "WriteInfo",
]
