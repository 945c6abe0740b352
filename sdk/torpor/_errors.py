"""Everything that this package raises: one tree, with a class for each code that the server answers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from ._command_models import CommandResult
    from ._result import ErrorInfo, Result


class TorporError(Exception):
    """Base of everything that this package raises. The message is a sentence; `hint`, if any, says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(TorporError):
    """There is no usable address or API key."""


class ServerUnreachable(TorporError):
    """No answer came from the server, however often it was asked."""


class ProtocolError(TorporError):
    """What came back is not what a Torpor server says; probably something else listens at this address."""


class NotFinished(TorporError, TimeoutError):
    """What was waited for is not finished in that time, and runs on."""


class CodeError(TorporError):
    """The code that ran in the machine ended in an error. Raised by `Result.raise_for_error` only.

    The machine lives on, with everything that the code had done before the error.
    """

    def __init__(self, result: Result, error: ErrorInfo) -> None:
        super().__init__(str(error))
        self.result = result
        self.name: str = error.name
        self.error_message: str = error.message
        self.traceback: tuple[str, ...] = error.traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result, self.result.error)


class CommandFailed(TorporError):
    """A command did not end by itself, and with 0. Raised by `CommandResult.raise_for_error` only."""

    def __init__(self, result: CommandResult) -> None:
        last = result.stderr.strip().rpartition("\n")[2]
        super().__init__(f"{result.error}: {last}" if last else str(result.error))
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


class ApiError(TorporError):
    """The server refused, or could not do it. `id` is the one in the server's log."""

    status: ClassVar[int] = 500
    """The HTTP status that this class's code comes with."""
    code: ClassVar[str] = ""
    """The server's word for it, from its closed list."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        id: str | None = None,
        received_status: int | None = None,
        received_code: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.id = id
        self.received_status: int = received_status if received_status is not None else self.status
        self.received_code: str = received_code if received_code is not None else self.code

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {
            "hint": self.hint,
            "id": self.id,
            "received_status": self.received_status,
            "received_code": self.received_code,
        }
        return _rebuild, (type(self), self.message, fields)


def _rebuild(kind: type[ApiError], message: str, fields: dict[str, Any]) -> ApiError:
    return kind(message, **fields)


class UnknownApiError(ApiError):
    """A code or a status that this version does not know; see `received_code` and `received_status`."""


class InternalError(ApiError):
    """Something went wrong on the server; its log has the details under the error's `id`."""

    status = 500
    code = "internal_error"


class Unauthorized(ApiError):
    """The API key is missing or wrong."""

    status = 401
    code = "unauthorized"


class NotFound(ApiError):
    """There is nothing of this kind at the server."""

    status = 404
    code = "not_found"


class MachineNotFound(NotFound):
    """No machine of this name belongs to the account."""

    code = "machine_not_found"


class InstructionNotFound(NotFound):
    """The machine has no instruction with this number."""

    code = "instruction_not_found"


class KeyNotFound(NotFound):
    """The account has no API key with this id."""

    code = "key_not_found"


class CommandNotFound(NotFound):
    """The machine has no command with this number."""

    code = "command_not_found"


class SnapshotNotFound(NotFound):
    """The machine has no snapshot of this generation, or it is not kept any more."""

    code = "snapshot_not_found"


class MethodNotAllowed(ApiError):
    """The address does not take that method; probably the server is older than this package."""

    status = 405
    code = "method_not_allowed"


class Conflict(ApiError):
    """The machine is in no state to do this now."""

    status = 409


class MachineBusy(Conflict):
    """The machine runs another instruction: say `queue=True` to wait for it, or `interrupt=True` to end it."""

    code = "machine_busy"


class MachineParked(Conflict):
    """The machine could not be recovered; `Machine.recover` has the ways out, and its history can be read."""

    code = "machine_parked"


class MachineNotParked(Conflict):
    """The machine is not parked: it recovers by itself."""

    code = "machine_not_parked"


class CommandNotRunning(Conflict):
    """The command has ended."""

    code = "command_not_running"


class CommandInputClosed(Conflict):
    """The command's standard input has ended; start it with `stdin_open=True` to send input later."""

    code = "command_input_closed"


class CommandInputFull(Conflict):
    """The command was given as much input as one may be; write a file instead, and let it read that."""

    code = "command_input_full"


class InstructionNotRunning(Conflict):
    """The instruction has ended, and reads nothing any more."""

    code = "instruction_not_running"


class StdinClosed(Conflict):
    """The instruction is given nothing more to read; run it with `stdin_open=True` to answer while it runs."""

    code = "stdin_closed"


class StdinFull(Conflict):
    """The instruction was given as much to read as one may be; write a file instead, and let it read that."""

    code = "stdin_full"


class MachineNotIdle(Conflict):
    """The machine cannot fall asleep while an instruction is unfinished."""

    code = "machine_not_idle"


class LastKey(Conflict):
    """This is the account's last API key, which cannot be revoked."""

    code = "last_key"


class AliasTaken(Conflict):
    """Another machine of the account has this alias."""

    code = "alias_taken"


class PointUnreachable(Conflict):
    """The machine cannot be brought to this point of its history; the hint names the nearest that it can."""

    code = "point_unreachable"


class InstructionExpired(ApiError):
    """The machine had this instruction; its code, its output and its result are not kept any more."""

    status = 410
    code = "instruction_expired"


class RuntimeQuarantined(Conflict):
    """The machine's runtime is quarantined: it is not woken for instructions."""

    code = "runtime_quarantined"


class BodyTooLarge(ApiError):
    """The code, or whatever else was sent, is larger than the server takes."""

    status = 413
    code = "body_too_large"


class InvalidRequest(ApiError):
    """An argument is not what the server takes; the message names it."""

    status = 422
    code = "invalid_request"


class IdempotencyKeyReused(ApiError):
    """The idempotency key came with another request before."""

    status = 422
    code = "idempotency_key_reused"


class TooManyUnfinished(ApiError):
    """The machine has too many instructions waiting."""

    status = 429
    code = "too_many_unfinished"


class TooManyCommands(ApiError):
    """The machine runs as many commands as it may at once."""

    status = 429
    code = "too_many_commands"


class FileNotFound(NotFound):
    """The machine has no such file or folder."""

    code = "file_not_found"


class FilePermissionDenied(ApiError):
    """The machine's user may not do this with the file."""

    status = 403
    code = "permission_denied"


class IsAFolder(Conflict):
    """There is a folder, and no file."""

    code = "is_a_folder"


class NotAFolder(Conflict):
    """There is something that is no folder."""

    code = "not_a_folder"


class NotAFile(Conflict):
    """There is a FIFO, a socket or a device, which is neither read nor written over."""

    code = "not_a_file"


class FolderNotEmpty(Conflict):
    """The folder has something in it: say `recursive=True`."""

    code = "folder_not_empty"


class FilesUnsupported(Conflict):
    """The machine is from before files; code that it runs can still read and write them."""

    code = "files_unsupported"


class FileFailed(Conflict):
    """It could not be done in the machine; the message says what came in between."""

    code = "file_failed"


class PackagesNotInstalled(Conflict):
    """The packages were not installed; the message says why."""

    code = "packages_not_installed"


class FileChanged(ApiError):
    """The file is not what it was when it was looked at before."""

    status = 412
    code = "file_changed"


class RangeNotSatisfiable(ApiError):
    """The file ends before the range begins."""

    status = 416
    code = "range_not_satisfiable"


class InvalidPath(ApiError):
    """This cannot be the path of a file."""

    status = 422
    code = "invalid_path"


class InvalidArchive(ApiError):
    """The archive cannot be unpacked: it is none, or would write outside of its folder."""

    status = 422
    code = "invalid_archive"


class DiskFull(ApiError):
    """The machine has no room for it; what was there before is unharmed."""

    status = 507
    code = "disk_full"


class StorageFull(ApiError):
    """The server's disk is full, or the account has as much there as it may."""

    status = 507
    code = "storage_full"


class Unavailable(ApiError):
    """The server cannot do this now. It was asked again, with back-off, before this was raised."""

    status = 503


class SaveFailed(Unavailable):
    """The machine could not be saved; it stays awake and unharmed."""

    code = "save_failed"


class CannotWake(Unavailable):
    """The machine cannot be woken now; what it was told waits, and the server tries again."""

    code = "cannot_wake"


class TransferInterrupted(Unavailable):
    """The machine's process ended in the middle of it; it is brought back, and nothing was changed."""

    code = "transfer_interrupted"


class ShuttingDown(Unavailable):
    """The server is stopping; what it has accepted goes on after its next start."""

    code = "shutting_down"


_Error = TypeVar("_Error", bound=TorporError)


def _family(parent: type[_Error]) -> list[type[_Error]]:
    return [kind for child in parent.__subclasses__() for kind in (child, *_family(child))]


ERRORS_BY_CODE: dict[str, type[ApiError]] = {kind.code: kind for kind in _family(ApiError) if "code" in vars(kind)}
"""The class of each code of the server's closed list."""

for _kind in (TorporError, *_family(TorporError)):
    _kind.__module__ = "torpor"  # where users find it, and what a traceback of theirs shows


def api_error(status: int, body: object) -> ApiError:
    """The error for an answer with this status, from the JSON of its body (None if it was no JSON)."""
    fields = body if isinstance(body, dict) else {}
    code = fields.get("code")
    message = fields.get("message") or _sentence(ERRORS_BY_CODE.get(code) if isinstance(code, str) else None)
    kind = ERRORS_BY_CODE.get(code, UnknownApiError) if isinstance(code, str) else UnknownApiError
    return kind(
        message if isinstance(message, str) and message else f"The server answered with status {status}.",
        hint=_text(fields.get("hint")),
        id=_text(fields.get("id")),
        received_status=status,
        received_code=_text(code),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _sentence(kind: type[ApiError] | None) -> str | None:
    """What to say where the server's own words could not come along."""
    return None if kind is None or kind.__doc__ is None else kind.__doc__.split("\n")[0]
