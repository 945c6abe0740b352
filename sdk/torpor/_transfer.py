"""Bytes on their way to and from a machine: the part of both clients that knows what was sent and what has come."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from . import _file_calls
from ._calls import Call
from ._errors import ProtocolError, TorporError

PIECE_BYTES = 64 * 1024
Progress = Callable[[int, int | None], object]
"""Called with the bytes that are done, and all that there are, if that is known."""


class Source:
    """What is uploaded. It can be read from its beginning again, as often as it must be."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.size: int | None = None
        self.sha256: str = ""
        """Of what was read last."""
        self._progress = progress

    def pieces(self) -> Iterator[bytes]:
        """All of it, from the beginning."""
        digest, done = hashlib.sha256(), 0
        self._tell(0)
        for piece in self._read():
            digest.update(piece)
            self.sha256 = digest.hexdigest()
            yield piece
            done += len(piece)
            self._tell(done)
        self.sha256 = digest.hexdigest()

    def _read(self) -> Iterator[bytes]:
        raise NotImplementedError

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self.size)

    def check(self, received: str) -> None:
        """Compare with the digest of what the server has. Raises `ProtocolError`."""
        if received != self.sha256:
            raise ProtocolError("What the server received is not what was sent.", hint="Send it again.")


class Bytes(Source):
    """Bytes that are there."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.size = len(data)

    def _read(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), PIECE_BYTES):
            yield self._data[start : start + PIECE_BYTES]


class LocalFile(Source):
    """A file of this computer's."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(progress)
        self._path = path
        about = path.stat()
        self.size = about.st_size
        self.mode = stat.S_IMODE(about.st_mode)

    def _read(self) -> Iterator[bytes]:
        left = self.size or 0
        with self._path.open("rb") as file:
            while left:
                piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    raise TorporError(f"{self._path} became shorter while it was read.")
                left -= len(piece)
                yield piece


class LocalFolder(Source):
    """A folder of this computer's, as a tar archive: its files, folders and links."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(progress)
        self._path = path

    def _read(self) -> Iterator[bytes]:
        for root, folders, files in os.walk(self._path):
            folders.sort()
            for name in sorted([*folders, *files]):
                path = Path(root, name)
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                    continue
                yield from self._member(path, path.relative_to(self._path).as_posix())
        yield bytes(2 * tarfile.BLOCKSIZE)

    @staticmethod
    def _member(path: Path, name: str) -> Iterator[bytes]:
        about = path.lstat()
        member = tarfile.TarInfo(name)
        member.mode, member.mtime = stat.S_IMODE(about.st_mode), int(about.st_mtime)
        if stat.S_ISLNK(about.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISDIR(about.st_mode):
            member.type = tarfile.DIRTYPE
        else:
            member.size = about.st_size
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if member.size:
            left = member.size
            with path.open("rb") as file:
                while left:
                    piece = file.read(min(PIECE_BYTES, left))
                    if not piece:
                        raise TorporError(f"{path} became shorter while it was read.")
                    left -= len(piece)
                    yield piece
            yield bytes(-member.size % tarfile.BLOCKSIZE)


def source_of(path: Path, progress: Progress | None) -> LocalFile | LocalFolder:
    """A file or a folder of this computer's. Raises `OSError`, and `TorporError` for anything else."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return LocalFolder(path, progress)
    if stat.S_ISREG(mode):
        return LocalFile(path, progress)
    raise TorporError(f"{path} is neither a file nor a folder.")


class Download:
    """A file, or a piece of it, on its way here: goes on where it broke, and begins anew if the file is another."""

    def __init__(
        self,
        machine: str,
        path: str,
        into: BinaryIO,
        progress: Progress | None = None,
        *,
        start: int = 0,
        length: int | None = None,
    ) -> None:
        if start < 0 or (length is not None and length < 1):
            raise ValueError("`start` must not be below 0, and `length` not below 1.")
        self._machine = machine
        self._path = path
        self._into = into
        self._progress = progress
        self._start = start
        self._stop = None if length is None else start + length
        self._digest = hashlib.sha256()
        self._done = 0
        self._tag: str | None = None
        self._total: int | None = None
        self.finished: bool = False

    @property
    def sha256(self) -> str:
        """Of what has come."""
        return self._digest.hexdigest()

    @property
    def tag(self) -> str | None:
        """Of the file that comes."""
        return self._tag

    def next_call(self) -> Call:
        """What to ask for now."""
        return _file_calls.read(self._machine, self._path, self._start + self._done, self._stop, self._tag)

    def start_anew(self) -> bool:
        """The file is another: forget what has come; False if nothing had."""
        if self._tag is None:
            return False
        self._into.seek(0)
        self._into.truncate()
        self._digest = hashlib.sha256()
        self._done, self._tag, self._total = 0, None, None
        return True

    def opened(self, status: int, headers: Mapping[str, str]) -> None:
        """An answer begins. Raises `ProtocolError` for one that does not go on where the last one broke."""
        begins_at = 0
        if status == 206:
            begins_at = int(headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
        if begins_at != self._start + self._done:
            raise ProtocolError("The server does not go on where the download broke.")
        self._tag = headers.get("ETag")
        self._total = self._done + int(headers["Content-Length"])
        self._tell()

    def feed(self, piece: bytes) -> None:
        """A piece has come."""
        self._into.write(piece)
        self._digest.update(piece)
        self._done += len(piece)
        self._tell()

    def ended(self) -> None:
        """The answer has ended, or was cut."""
        self.finished = self._total is not None and self._done == self._total

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)


def unpack(archive: BinaryIO, into: Path) -> None:
    """Unpack an archive that a machine has made: nothing of it leaves the folder. Raises `TorporError`."""
    if not hasattr(tarfile, "data_filter"):
        raise TorporError("This Python cannot unpack archives safely.", hint="Use 3.10.12, 3.11.4, or newer.")
    into.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"filter": "data"}
    try:
        with tarfile.open(fileobj=archive, mode="r:", errors="surrogateescape") as tar:
            tar.extractall(into, **options)  # noqa: S202 (with the filter for such archives)
    except tarfile.TarError as error:
        raise TorporError(f"The folder could not be unpacked: {error}.") from error


class Counted(io.RawIOBase):
    """A file that tells how much was written into it."""

    def __init__(self, file: BinaryIO, progress: Progress | None) -> None:
        self._file = file
        self._progress = progress

    def write(self, data: Any, /) -> int:
        """Write, and tell."""
        count = self._file.write(data)
        if self._progress is not None:
            self._progress(self._file.tell(), None)
        return count

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """See `io`."""
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """See `io`."""
        return self._file.truncate(size)
