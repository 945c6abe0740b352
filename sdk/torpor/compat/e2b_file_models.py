"""What E2B knows of files, with the same names."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from enum import Enum
from typing import IO, TypedDict

from .._command_models import CommandResult
from .._file_models import FileInfo
from .e2b_errors import InvalidArgumentException, SandboxException

HOME = "/home/user"
USER = "user"
"""A machine has one user, of one group."""

WriteData = str | bytes | IO[str] | IO[bytes] | Iterable[bytes]


class WriteEntry(TypedDict):
    """A file to write."""

    path: str
    data: WriteData


class FileType(Enum):
    """What something is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


TYPES = {"file": FileType.FILE, "folder": FileType.DIR, "link": FileType.SYMLINK}
_BITS = {"folder": stat.S_IFDIR, "link": stat.S_IFLNK}


@dataclass
class WriteInfo:
    """A file that was written."""

    name: str
    type: FileType | None
    path: str
    """Its absolute path."""
    _: KW_ONLY
    metadata: dict[str, str] | None = None
    """Always None: files carry no metadata here."""


@dataclass
class EntryInfo(WriteInfo):
    """Something in a folder."""

    size: int
    """Bytes."""
    mode: int
    permissions: str
    """Such as `-rw-r--r--`."""
    owner: str
    """Always `user`."""
    group: str
    """Always `user`."""
    modified_time: datetime
    symlink_target: str | None = None


def entry_of(file: FileInfo) -> EntryInfo:
    """What is there, in E2B's form."""
    return EntryInfo(
        name=name_of(file.path),
        type=TYPES.get(file.kind),
        path=absolute(file.path),
        size=file.size,
        mode=file.mode,
        permissions=stat.filemode(_BITS.get(file.kind, stat.S_IFREG) | file.mode),
        owner=USER,
        group=USER,
        modified_time=file.modified,
        symlink_target=file.target,
    )


def move(old_path: str, new_path: str) -> list[str]:
    """The command that moves something, with folders on the way made."""
    script = 'mkdir -p -- "$(dirname -- "$2")" && mv -fT -- "$1" "$2"'
    return ["sh", "-c", script, "sh", absolute(old_path), absolute(new_path)]


def check_moved(result: CommandResult) -> None:
    """Raise `SandboxException` unless it was moved."""
    if not result.ok:
        raise SandboxException(result.stderr.strip() or result.error or "It could not be moved.")


def read_as(data: bytes, format: str) -> str | bytearray:
    """A file's bytes as they were asked for."""
    return bytearray(data) if format == "bytes" else data.decode("utf-8", "replace")


def check_format(format: str) -> None:
    """Raise `InvalidArgumentException` unless files are read so."""
    if format not in ("text", "bytes"):
        raise InvalidArgumentException(f"{format!r} is no format here; `sandbox.machine.files.download` streams.")


def check_depth(depth: int | None) -> None:
    """Raise `InvalidArgumentException` unless folders are listed so deep."""
    if depth is not None and depth < 1:
        raise InvalidArgumentException("depth should be at least 1")


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raise `InvalidArgumentException` if there is any."""
    if metadata:
        raise InvalidArgumentException("Files carry no metadata here.")


def check_is_folder(path: str, there: FileInfo) -> None:
    """Raise `InvalidArgumentException` if something else is there."""
    if there.kind != "folder":
        raise InvalidArgumentException(f"{path} is there, and is no folder.")


def written(path: str) -> WriteInfo:
    """A file that was written, in E2B's form."""
    return WriteInfo(name_of(path), FileType.FILE, absolute(path))


def absolute(path: str) -> str:
    """A path from the root on."""
    return posixpath.normpath(posixpath.join(HOME, path))


def name_of(path: str) -> str:
    """The last part of a path."""
    return posixpath.basename(absolute(path))


def bytes_of(data: WriteData) -> bytes:
    """What is to be written. Raises `InvalidArgumentException`."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, Iterable) and not hasattr(data, "read"):
        return b"".join(map(_chunk, data))
    read: Callable[[], object] | None = getattr(data, "read", None)
    if read is None:
        raise InvalidArgumentException(f"Unsupported data type: {type(data)}")
    text = read()
    return text.encode() if isinstance(text, str) else _chunk(text)


def _chunk(data: object) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidArgumentException(f"Data must be bytes, not {type(data).__name__}.")
    return bytes(data)
