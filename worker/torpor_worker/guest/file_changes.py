"""Changes to the user's files, in two steps: prepared beside what is there, then applied. Runs as the user.

Applying is a rename where it can be. Whoever is killed while applying leaves enough for another to go on: each step of
it may be taken again. Where that is was decided when it was prepared: a path may lead elsewhere since.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from .file_access import Refused, kind_of, path_of, text_of
from .file_archive import Source, extract

GONE = Refused("file_failed", "what was prepared for it is gone")


class Change:
    """One change; `token` names what it prepares, so that whoever cleans up finds it."""

    def __init__(self, fields: dict[str, Any], token: str) -> None:
        self._path = path_of(fields["path"])
        self._fields = fields
        self._part = f".torpor-{token}.part".encode()
        self._known = fields.get("prepared")
        """What another has prepared, which is gone on with; None if nobody has."""
        self.has_begun = False
        """Whether something was changed: a refusal then leaves it half made."""

    def about(self) -> dict[str, Any]:
        """What whoever goes on must know."""
        return {}

    def _resolved(self) -> bytes:
        return path_of(self._known["target"]) if self._known else os.path.realpath(self._path)

    def prepare(self, take: Callable[[], bytes]) -> None:
        """All that may fail, and that nobody sees; `take` gives the next piece of the body, at last none."""
        raise NotImplementedError

    def apply(self) -> None:
        """Make it true."""
        raise NotImplementedError

    def clean(self) -> None:
        """Remove what was prepared."""


class Write(Change):
    """A file's new content."""

    def __init__(self, fields: dict[str, Any], token: str) -> None:
        super().__init__(fields, token)
        if self._path.endswith((b"/", b"/.", b"/..")) or self._path in (b".", b".."):
            raise Refused("is_a_folder", "the path names a folder")
        self._target = self._resolved()
        self._place = os.path.join(os.path.dirname(self._target), self._part)

    def about(self) -> dict[str, Any]:
        """Where it goes, and which file it is."""
        return {"target": text_of(self._target), "inode": _inode(self._place)}

    def prepare(self, take: Callable[[], bytes]) -> None:
        """Write it beside the file that is there."""
        mode = self._fields["mode"]
        old = _status(self._target)
        if old is not None:
            if kind_of(old) == "folder":
                raise IsADirectoryError(errno.EISDIR, "")
            if kind_of(old) != "file":
                raise Refused("not_a_file", f"there is a {kind_of(old)}, which is not written over")
            if not os.access(self._target, os.W_OK):
                raise PermissionError(errno.EACCES, "")
            mode = old.st_mode & 0o7777 if mode is None else mode
        os.makedirs(os.path.dirname(self._target), exist_ok=True)
        fd = os.open(self._place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            while piece := memoryview(take()):
                while piece:
                    piece = piece[os.write(fd, piece) :]
            if mode is not None:
                os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def apply(self) -> None:
        """Put it in the file's place."""
        try:
            os.rename(self._place, self._target)
        except FileNotFoundError:
            if not self._known or not _is(self._target, self._known["inode"]):  # else it is there already
                raise GONE from None

    def clean(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            os.unlink(self._place)


class Remove(Change):
    """The end of a file, a link or a folder."""

    def prepare(self, take: Callable[[], bytes]) -> None:
        """See whether it may go."""
        info = os.lstat(self._path)
        if kind_of(info) == "folder" and not self._fields["recursive"] and os.listdir(self._path):
            raise OSError(errno.ENOTEMPTY, "")
        folder = os.path.dirname(os.path.abspath(self._path))
        if os.path.realpath(self._path) == b"/" or os.path.ismount(self._path):
            raise Refused("permission_denied", "a whole file system is not removed")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")

    def apply(self) -> None:
        """Remove it."""
        with contextlib.suppress(FileNotFoundError):
            if kind_of(os.lstat(self._path)) != "folder":
                os.unlink(self._path)
            elif self._fields["recursive"]:
                self.has_begun = True
                shutil.rmtree(self._path)
            else:
                os.rmdir(self._path)


class Unpack(Change):
    """What is in an archive, in a folder: files that are there already are replaced, others stay."""

    def __init__(self, fields: dict[str, Any], token: str) -> None:
        super().__init__(fields, token)
        self._target = self._resolved()
        self._beside = os.path.join(os.path.dirname(self._target), self._part)
        self._inside = os.path.join(self._target, self._part)

    def prepare(self, take: Callable[[], bytes]) -> None:
        """Unpack it into a folder of its own, on the same file system."""
        old = _status(self._target)
        if old is not None and kind_of(old) != "folder":
            raise NotADirectoryError(errno.ENOTDIR, "")
        place = self._beside if old is None else self._inside
        os.makedirs(place)
        source = Source(take)
        extract(source, place)
        if old is not None:
            for fresh, there in self._pairs():
                self._check(fresh, there)

    def about(self) -> dict[str, Any]:
        """Where it goes, and which folder it is."""
        place = self._beside if os.path.lexists(self._beside) else self._inside
        return {"target": text_of(self._target), "inode": _inode(place)}

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        for root, folders, files in os.walk(self._inside):
            there = os.path.normpath(os.path.join(self._target, os.path.relpath(root, self._inside)))
            for name in sorted([*folders, *files]):
                yield os.path.join(root, name), os.path.join(there, name)

    def _check(self, fresh: bytes, there: bytes) -> None:
        try:
            old = kind_of(os.lstat(there))
        except (FileNotFoundError, NotADirectoryError):
            return
        name = os.path.relpath(there, self._target)
        if (kind_of(os.lstat(fresh)) == "folder") != (
            old == "folder"
        ):  # a link to a folder is none: it leads elsewhere
            raise Refused(
                "is_a_folder" if old == "folder" else "not_a_folder", f"{os.fsdecode(name)!a} is a {old} there"
            )

    def apply(self) -> None:
        """Rename all of it into its place."""
        if os.path.lexists(self._beside):
            os.rename(self._beside, self._target)
            return
        if not os.path.lexists(self._inside):
            if not self._known:  # else it was all made
                raise GONE
            return
        for fresh, there in self._pairs():
            if kind_of(os.lstat(fresh)) != "folder":
                os.rename(fresh, there)
                self.has_begun = True
            elif not os.path.isdir(there):
                os.mkdir(there)
                self.has_begun = True
                shutil.copystat(fresh, there)
        shutil.rmtree(self._inside, ignore_errors=True)

    def clean(self) -> None:
        """Remove it."""
        for place in (self._beside, self._inside):
            shutil.rmtree(place, ignore_errors=True)


CHANGES: dict[str, type[Change]] = {"write": Write, "remove": Remove, "unpack": Unpack}


def _inode(part: bytes) -> int:
    try:
        return os.lstat(part).st_ino
    except FileNotFoundError:
        raise GONE from None


def _is(path: bytes, inode: int) -> bool:
    info = _status(path)
    return info is not None and info.st_ino == inode


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
