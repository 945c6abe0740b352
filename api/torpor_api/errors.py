"""Every error that the API answers with: a class and a sentence. This is the closed list of codes."""

from __future__ import annotations


class TorporError(Exception):
    """Something that a client is told. The message is a sentence for people; `hint` says what to do."""

    status = 500
    code = "internal_error"
    hint: str | None = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n")[0])
        if hint is not None:
            self.hint = hint


class InternalError(TorporError):
    """Something went wrong on the server; its log has the details under this id."""


class Unauthorized(TorporError):
    """The API key is missing or wrong."""

    status = 401
    code = "unauthorized"
    hint = "Send `Authorization: Bearer <account>.<secret>`; `torpor serve` prints and saves a key at its first start."


class NotFound(TorporError):
    """There is nothing at this address."""

    status = 404
    code = "not_found"


class MachineNotFound(TorporError):
    """No machine of this name belongs to the account."""

    status = 404
    code = "machine_not_found"


class InstructionNotFound(TorporError):
    """The machine has no instruction with this number."""

    status = 404
    code = "instruction_not_found"


class CommandNotFound(TorporError):
    """The machine has no command with this number."""

    status = 404
    code = "command_not_found"
    hint = "`GET /v1/machine/{name}/commands` lists them."


class KeyNotFound(TorporError):
    """The account has no API key with this id."""

    status = 404
    code = "key_not_found"
    hint = "`GET /v1/keys` lists those that there are."


class SnapshotNotFound(TorporError):
    """The machine has no snapshot of this generation, or it is not kept any more."""

    status = 404
    code = "snapshot_not_found"
    hint = "`GET /v1/machine/{name}/snapshots` lists those that are kept."


class MethodNotAllowed(TorporError):
    """This address does not take that method."""

    status = 405
    code = "method_not_allowed"


class MachineBusy(TorporError):
    """The machine is running another instruction."""

    status = 409
    code = "machine_busy"
    hint = "Send `queue: true` to wait for it, or `interrupt: true` to end it."


class MachineParked(TorporError):
    """The machine could not be recovered and is parked."""

    status = 409
    code = "machine_parked"


class MachineNotParked(TorporError):
    """The machine is not parked: it recovers by itself."""

    status = 409
    code = "machine_not_parked"
    hint = "To bring it back to an earlier point, use `rollback`."


class CommandNotRunning(TorporError):
    """The command has ended."""

    status = 409
    code = "command_not_running"


class CommandInputClosed(TorporError):
    """The command's standard input has ended."""

    status = 409
    code = "command_input_closed"
    hint = "Start it with `stdin_open: true` to send input later."


class CommandInputFull(TorporError):
    """The command was given as much input as one may be."""

    status = 409
    code = "command_input_full"
    hint = "Write a file into the machine, and let the command read that."


class InstructionNotRunning(TorporError):
    """The instruction has ended."""

    status = 409
    code = "instruction_not_running"
    hint = "What is to be read from the beginning can be given with the code, as `stdin`."


class StdinClosed(TorporError):
    """The instruction is given nothing more to read."""

    status = 409
    code = "stdin_closed"
    hint = "Run it with `stdin_open: true` to answer while it runs."


class StdinFull(TorporError):
    """The instruction was given as much to read as one may be."""

    status = 409
    code = "stdin_full"
    hint = "Write a file into the machine, and let it read that."


class NotIdle(TorporError):
    """The machine cannot fall asleep while an instruction is unfinished."""

    status = 409
    code = "machine_not_idle"


class PointUnreachable(TorporError):
    """The machine cannot be brought to this point of its history; the hint names the nearest that it can."""

    status = 409
    code = "point_unreachable"


class LastKey(TorporError):
    """This is the account's last API key: without it nobody could get in any more."""

    status = 409
    code = "last_key"
    hint = "Make another one first."


class AliasTaken(TorporError):
    """Another machine of the account has this alias."""

    status = 409
    code = "alias_taken"
    hint = "Take it from that one first: `PATCH` with `alias: null`, or delete that machine."


class InstructionExpired(TorporError):
    """The machine had this instruction; its code, its output and its result are not kept any more."""

    status = 410
    code = "instruction_expired"


class RuntimeQuarantined(TorporError):
    """The machine's runtime is quarantined: it is not woken for instructions."""

    status = 409
    code = "runtime_quarantined"
    hint = (
        "Its state is kept until whoever runs the server lifts the quarantine; `torpor recover MACHINE --how export` "
        "gives its files and variables."
    )


class BodyTooLarge(TorporError):
    """The request's body is larger than the server takes."""

    status = 413
    code = "body_too_large"


class InvalidRequest(TorporError):
    """The request is not well formed."""

    status = 422
    code = "invalid_request"


class IdempotencyKeyReused(TorporError):
    """This idempotency key came with another request before."""

    status = 422
    code = "idempotency_key_reused"
    hint = "Use a new key for a new request."


class TooManyUnfinished(TorporError):
    """The machine has too many instructions waiting."""

    status = 429
    code = "too_many_unfinished"
    hint = "Wait for some of them to finish."


class TooManyCommands(TorporError):
    """The machine runs as many commands as it may at once."""

    status = 429
    code = "too_many_commands"
    hint = "Wait until some of its 64 have ended, or end them."


class SaveFailed(TorporError):
    """The machine could not be saved; it stays awake and unharmed, and the save is tried again."""

    status = 503
    code = "save_failed"


class CannotWake(TorporError):
    """The machine cannot be woken now; its instructions wait, and it is tried again."""

    status = 503
    code = "cannot_wake"


class ShuttingDown(TorporError):
    """The server is stopping; what it has accepted goes on after its next start."""

    status = 503
    code = "shutting_down"
    hint = "Send the request again in a few seconds, with the same idempotency key."


class FileMissing(TorporError):
    """The machine has no such file or folder."""

    status = 404
    code = "file_not_found"


class PermissionDenied(TorporError):
    """The machine's user may not do this with the file."""

    status = 403
    code = "permission_denied"
    hint = "The user may write in `/home/user`, `/tmp` and `/dev/shm`."


class IsAFolder(TorporError):
    """There is a folder, and no file."""

    status = 409
    code = "is_a_folder"
    hint = "`GET …/files?path=` lists a folder; with `?archive=tar` it is read, or written, as an archive."


class NotAFolder(TorporError):
    """There is something that is no folder."""

    status = 409
    code = "not_a_folder"


class NotAFile(TorporError):
    """There is a FIFO, a socket or a device, which is neither read nor written over."""

    status = 409
    code = "not_a_file"


class FolderNotEmpty(TorporError):
    """The folder has something in it."""

    status = 409
    code = "folder_not_empty"
    hint = "`?recursive=true` removes it with all that is in it."


class FileChanged(TorporError):
    """The file is not what it was when it was looked at before."""

    status = 412
    code = "file_changed"
    hint = "Begin anew, without `If-Match` or `Range`."


class DiskFull(TorporError):
    """The machine has no room for it; what was there before is unharmed."""

    status = 507
    code = "disk_full"
    hint = "Its home folder takes 160 MiB, and a file that replaces another needs room beside it: remove that first."


class StorageFull(TorporError):
    """The server's disk is full, or the account has as much there as it may."""

    status = 507
    code = "storage_full"
    hint = (
        "What was uploaded is kept until two later saves of the machine have it, at least an hour: try again then, or"
        " delete machines."
    )


class InvalidPath(TorporError):
    """This cannot be the path of a file."""

    status = 422
    code = "invalid_path"


class InvalidArchive(TorporError):
    """The archive cannot be unpacked: it is none, or would write outside of its folder."""

    status = 422
    code = "invalid_archive"


class RangeNotSatisfiable(TorporError):
    """The file ends before the range begins."""

    status = 416
    code = "range_not_satisfiable"


class FilesUnsupported(TorporError):
    """The machine is from before files, and its guest cannot be replaced."""

    status = 409
    code = "files_unsupported"
    hint = "Code that it runs can still read and write them."


class FileFailed(TorporError):
    """It could not be done in the machine; the message says what came in between."""

    status = 409
    code = "file_failed"


class PackagesNotInstalled(TorporError):
    """The packages were not installed; the message says why."""

    status = 409
    code = "packages_not_installed"


class TransferInterrupted(TorporError):
    """The machine's process ended in the middle of it; it is brought back, and nothing was changed."""

    status = 503
    code = "transfer_interrupted"
    hint = "Send the request again."
