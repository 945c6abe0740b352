"""A folder as a tar archive, and back. Runs as the user, in a process of its own.

`tarfile` is imported there only: what the supervisor imports every sandbox has in its memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .file_access import PIECE_BYTES, Refused, kind_of, look, opened, path_of

if TYPE_CHECKING:
    import tarfile


class Sink:
    """What a tar writer writes to: pieces of one size."""

    def __init__(self, give: Callable[[bytes], None]) -> None:
        self._give = give
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        """Add to it."""
        self._pending += data
        while len(self._pending) >= PIECE_BYTES:
            self._give(bytes(self._pending[:PIECE_BYTES]))
            del self._pending[:PIECE_BYTES]
        return len(data)

    def end(self) -> None:
        """Give what is left."""
        if self._pending:
            self._give(bytes(self._pending))


class Source:
    """What a tar reader reads from: pieces as they come."""

    def __init__(self, take: Callable[[], bytes]) -> None:
        self._take = take
        self._rest = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        if not self._rest and not self._ended:
            self._rest = self._take()
            self._ended = not self._rest
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def drain(self) -> None:
        """Read to the end."""
        while self.read(PIECE_BYTES):
            pass


def members(folder: str) -> Iterator[tuple[str, str]]:
    """Folders, files and links below a folder, in order: path, and name in the archive. Nothing else is taken."""
    for root, folders, files in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = os.path.join(root, name)
            try:
                kind = kind_of(os.lstat(path))
            except FileNotFoundError:
                continue
            if kind in ("file", "folder", "link"):
                yield path, os.path.relpath(path, folder)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def archive(fields: dict[str, Any], tell: Callable[[dict[str, Any]], None], give: Callable[[bytes], None]) -> None:
    """Give a folder as a tar archive, without what is no file, folder or link. What cannot be read is told first."""
    path = path_of(fields["path"])
    about = look(path)
    if about["kind"] != "folder":
        raise NotADirectoryError(20, os.strerror(20))
    folder = os.fsdecode(path)
    for each, _ in members(folder):
        if not os.path.islink(each) and not os.access(each, os.R_OK | (os.X_OK if os.path.isdir(each) else 0)):
            if not os.path.lexists(each):
                continue
            raise Refused("permission_denied", f"{os.path.relpath(each, folder)!a} cannot be read")
    import tarfile  # noqa: PLC0415

    tell(about)
    sink = Sink(give)
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:  # type: ignore[call-overload]  # it only writes
        for each, name in members(folder):
            _add(tar, each, name)
    sink.end()


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    try:
        if not os.path.isfile(path) or os.path.islink(path):
            tar.addfile(tar.gettarinfo(path, name))
            return
        fd, info = opened(os.fsencode(path), os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(fd, "rb") as file:
        member = tar.tarinfo(name)
        member.size, member.mode, member.mtime = info.st_size, info.st_mode & 0o7777, int(info.st_mtime)
        member.uid, member.gid, member.uname, member.gname = info.st_uid, info.st_gid, "user", "user"
        try:
            tar.addfile(member, file)
        except OSError as error:
            if error.errno is None:  # what tarfile says of a file that is too short
                raise Refused("file_changed", f"{name!a} became shorter while it was read") from None
            raise


def extract(source: Source, folder: bytes) -> None:
    """Unpack an archive, compressed or not, into an empty folder. Raises `Refused` for what would leave it."""
    import tarfile  # noqa: PLC0415

    try:
        with tarfile.open(fileobj=source, mode="r|*", errors="surrogateescape") as tar:  # type: ignore[call-overload]  # it only reads
            tar.extractall(os.fsdecode(folder), filter="data")
    except tarfile.TarError as error:
        raise Refused("invalid_archive", str(error)[:500] or "it is no tar archive") from None
    except (EOFError, ValueError) as error:
        raise Refused("invalid_archive", str(error)[:500]) from None
    source.drain()
