"""Why work on a machine's files is refused, as clients are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torpor_api.errors import (
    DiskFull,
    FileChanged,
    FileFailed,
    FileMissing,
    FilesUnsupported,
    FolderNotEmpty,
    InvalidArchive,
    InvalidPath,
    IsAFolder,
    NotAFile,
    NotAFolder,
    PermissionDenied,
    StorageFull,
    TorporError,
    TransferInterrupted,
)
from torpor_api.file_paths import shown
from torpor_worker import bodies, files

BY_CODE: dict[str, type[TorporError]] = {
    error.code: error
    for error in (
        DiskFull,
        FileChanged,
        FileFailed,
        FileMissing,
        FilesUnsupported,
        FolderNotEmpty,
        InvalidArchive,
        InvalidPath,
        IsAFolder,
        NotAFile,
        NotAFolder,
        PermissionDenied,
    )
}
REFUSALS = (*BY_CODE.values(), TransferInterrupted)


@contextmanager
def told(path: str) -> Iterator[None]:
    """Tell what is refused within as an error of the API's, with the path that it is about."""
    try:
        yield
    except files.FileRefused as refused:
        message = str(refused).rstrip(".")
        where = shown(path)[:300] or "."
        raise BY_CODE[refused.code](f"{where}: {message[:1].lower()}{message[1:]}.") from refused
    except files.TransferLost as lost:
        raise TransferInterrupted(str(lost)) from lost
    except bodies.StorageFull as full:
        raise StorageFull(str(full)) from full
