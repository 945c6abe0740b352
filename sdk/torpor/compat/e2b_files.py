"""E2B's `sandbox.files` on a machine."""

from __future__ import annotations

import posixpath
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from enum import Enum
from typing import IO, Literal, TypedDict, overload

from .._errors import FileNotFound
from .._file_models import FileInfo
from .._machine import Machine
from .e2b_errors import InvalidArgumentException, SandboxException, in_their_words

HOME = "/home/user"
USER = "user"
"""A machine has one user, of one group."""
MOVE = 'mkdir -p -- "$(dirname -- "$2")" && mv -fT -- "$1" "$2"'

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


_TYPES = {"file": FileType.FILE, "folder": FileType.DIR, "link": FileType.SYMLINK}
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


class Filesystem:
    """Files of one sandbox. `user`, `request_timeout`, `gzip` and `use_octet_stream` mean nothing here."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._files = machine.files

    @overload
    def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str: ...

    @overload
    def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> bytearray: ...

    def read(
        self,
        path: str,
        format: Literal["text", "bytes"] = "text",
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        stream_idle_timeout: float | None = None,
    ) -> str | bytearray:
        """What is in a file. Raises `FileNotFoundException`, and `InvalidArgumentException` for a folder."""
        if format not in ("text", "bytes"):
            raise InvalidArgumentException(f"{format!r} is no format here; `sandbox.machine.files.download` streams.")
        with in_their_words():
            data = self._files.read(path)
        return bytearray(data) if format == "bytes" else data.decode("utf-8", "replace")

    def write(
        self,
        path: str,
        data: WriteData,
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> WriteInfo:
        """Write a file, and the folders on the way to it. Raises `InvalidArgumentException`."""
        (written,) = self.write_files([WriteEntry(path=path, data=data)], metadata=metadata)
        return written

    def write_files(
        self,
        files: Sequence[WriteEntry],
        user: str | None = None,
        request_timeout: float | None = None,
        gzip: bool = False,
        use_octet_stream: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[WriteInfo]:
        """Write several files, one after the other. Raises as `write` does; those before stay then."""
        if metadata:
            raise InvalidArgumentException("Files carry no metadata here.")
        with in_their_words():
            for file in files:
                self._files.write(file["path"], _bytes_of(file["data"]))
        return [WriteInfo(_name(file["path"]), FileType.FILE, _absolute(file["path"])) for file in files]

    def list(
        self, path: str, depth: int | None = 1, user: str | None = None, request_timeout: float | None = None
    ) -> list[EntryInfo]:
        """What is in a folder, and with a greater `depth` in those below it. Raises `FileNotFoundException`."""
        if depth is not None and depth < 1:
            raise InvalidArgumentException("depth should be at least 1")
        with in_their_words():
            return [entry_of(file) for file in self._below(path, depth or 1) if file.kind in _TYPES]

    def _below(self, path: str, depth: int) -> Iterator[FileInfo]:
        for file in self._files.list(path):
            yield file
            if depth > 1 and file.kind == "folder":
                yield from self._below(file.path, depth - 1)

    def exists(self, path: str, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Whether something is there."""
        with in_their_words():
            return self._files.exists(path)

    def get_info(self, path: str, user: str | None = None, request_timeout: float | None = None) -> EntryInfo:
        """What is there, behind links. Raises `FileNotFoundException`."""
        with in_their_words():
            return entry_of(self._files.info(path))

    def remove(self, path: str, user: str | None = None, request_timeout: float | None = None) -> None:
        """Remove a file, or a folder with all that is in it; nothing if there is none."""
        with in_their_words():
            try:
                self._files.remove(path, recursive=True)
            except FileNotFound:
                return

    def rename(
        self, old_path: str, new_path: str, user: str | None = None, request_timeout: float | None = None
    ) -> EntryInfo:
        """Move something, with folders on the way made; what is there is replaced. Raises `FileNotFoundException`."""
        with in_their_words():
            self._files.info(old_path)
            moved = self._machine.commands.run(["sh", "-c", MOVE, "sh", _absolute(old_path), _absolute(new_path)])
            if not moved.ok:
                raise SandboxException(moved.stderr.strip() or moved.error or "It could not be moved.")
            return entry_of(self._files.info(new_path))

    def make_dir(self, path: str, user: str | None = None, request_timeout: float | None = None) -> bool:
        """Make a folder, and those on the way to it; False if it is there. Raises `InvalidArgumentException`."""
        with in_their_words():
            try:
                there = self._files.info(path)
            except FileNotFound:
                with tempfile.TemporaryDirectory() as nothing:
                    self._files.upload(nothing, path)
                return True
        if there.kind != "folder":
            raise InvalidArgumentException(f"{path} is there, and is no folder.")
        return False


def entry_of(file: FileInfo) -> EntryInfo:
    """What is there, in E2B's form."""
    return EntryInfo(
        name=_name(file.path),
        type=_TYPES.get(file.kind),
        path=_absolute(file.path),
        size=file.size,
        mode=file.mode,
        permissions=stat.filemode(_BITS.get(file.kind, stat.S_IFREG) | file.mode),
        owner=USER,
        group=USER,
        modified_time=file.modified,
        symlink_target=file.target,
    )


def _absolute(path: str) -> str:
    return posixpath.normpath(posixpath.join(HOME, path))


def _name(path: str) -> str:
    return posixpath.basename(_absolute(path))


def _bytes_of(data: WriteData) -> bytes:
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
