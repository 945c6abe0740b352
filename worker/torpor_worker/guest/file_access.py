"""The user's files: what is there, its bytes, a folder's names. Runs as the user, in a process of its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

PIECE_BYTES = 48 << 10
"""As much as one packet takes."""
UNSIZED_BYTES = 1 << 20
"""What is read of a file that says it is empty, as those of /proc do, to find out what it has."""

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
CODES = {
    errno.ENOENT: "file_not_found",
    errno.ENOTDIR: "not_a_folder",
    errno.EISDIR: "is_a_folder",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.ENOTEMPTY: "folder_not_empty",
    errno.ELOOP: "invalid_path",
    errno.ENAMETOOLONG: "invalid_path",
    errno.EINVAL: "invalid_path",
}


class Refused(Exception):
    """It cannot be done, for a reason that has a code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def refusal(error: Exception) -> Refused:
    """Why an operation failed, from what it raised."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return Refused(CODES.get(error.errno, "file_failed"), os.strerror(error.errno))
    return Refused("file_failed", f"{type(error).__name__}: {error}"[:500])


def path_of(text: str) -> bytes:
    """The path that the host means; bytes that are no UTF-8 come as lone surrogates."""
    path = text.encode("utf-8", "surrogateescape")
    if b"\0" in path:
        raise Refused("invalid_path", "a path has no zero byte in it")
    return path or b"."


def text_of(path: bytes) -> str:
    """The opposite of `path_of`."""
    return path.decode("utf-8", "surrogateescape")


def kind_of(info: os.stat_result) -> str:
    """One of `KINDS`."""
    return KINDS.get(stat.S_IFMT(info.st_mode), "device")


def described(info: os.stat_result, size: int | None = None) -> dict[str, Any]:
    """What the host is told of a file; `tag` changes with what is in it."""
    length = info.st_size if size is None else size
    return {
        "kind": kind_of(info),
        "size": length,
        "mode": stat.S_IMODE(info.st_mode),
        "modified_ns": info.st_mtime_ns,
        "tag": f"{info.st_ino:x}-{length:x}-{info.st_mtime_ns:x}",
    }


def look(path: bytes, *, digest: bool = False) -> dict[str, Any]:
    """What is at a path, behind symbolic links; with `digest`, the SHA-256 of a file's bytes too."""
    info = os.stat(path)
    if not digest or kind_of(info) != "file":
        return described(info)
    fd, info = opened(path)
    with os.fdopen(fd, "rb") as file:
        return described(info) | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def opened(path: bytes, flags: int = 0) -> tuple[int, os.stat_result]:
    """A file's descriptor, which never waits for another end. Raises `Refused` for what is not a file."""
    _check_file(os.stat(path) if not flags & os.O_NOFOLLOW else os.lstat(path))  # opening a device may do something
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags)
    info = os.fstat(fd)
    try:
        _check_file(info)
    except BaseException:
        os.close(fd)
        raise
    return fd, info


def _check_file(info: os.stat_result) -> None:
    kind = kind_of(info)
    if kind == "folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind != "file":
        raise Refused("not_a_file", f"it is a {kind}, and no file")


def read(fields: dict[str, Any], tell: Callable[[dict[str, Any]], None], give: Callable[[bytes], None]) -> None:
    """Give a file's bytes from `start` to `stop`, as many as it had when it was opened; first, tell what it is."""
    fd, info = opened(path_of(fields["path"]))
    head = _all_of(fd) if info.st_size == 0 else b""
    about = described(info, len(head) or None)
    if fields.get("tag") not in (None, about["tag"]):
        raise Refused("file_changed", "it is not the same any more")
    size = about["size"]
    start, stop = fields["start"], size if fields["stop"] is None else min(fields["stop"], size)
    if start < 0:  # so many from the end
        start = max(0, size + start)
    tell(about | {"start": start, "stop": max(start, stop)})
    while start < stop:
        piece = (
            head[start : min(stop, start + PIECE_BYTES)]
            if head
            else os.pread(fd, min(PIECE_BYTES, stop - start), start)
        )
        if not piece:
            raise Refused("file_changed", "it became shorter while it was read")
        give(piece)
        start += len(piece)


def _all_of(fd: int) -> bytes:
    data = b""
    while len(data) < UNSIZED_BYTES and (piece := os.read(fd, UNSIZED_BYTES - len(data))):
        data += piece
    return data


def names(path: bytes) -> Iterator[bytes]:
    """A folder's names, in order."""
    yield from sorted(os.listdir(path))


def listing(fields: dict[str, Any], give: Callable[[bytes], None]) -> dict[str, Any]:
    """Give a line of JSON for each of a folder's entries behind `after`, at most `limit`; whether there are more."""
    path = path_of(fields["path"])
    after, limit = fields["after"], fields["limit"]
    behind = [name for name in names(path) if after is None or name > path_of(after)]
    lines = b""
    for name in behind[:limit]:
        try:
            info = os.lstat(os.path.join(path, name))
            target = os.readlink(os.path.join(path, name)) if kind_of(info) == "link" else None
        except FileNotFoundError:
            continue  # it has gone since
        about = {"name": text_of(name)} | described(info)
        if target is not None:
            about["target"] = text_of(target)
        line = json.dumps(about).encode() + b"\n"
        if len(lines) + len(line) > PIECE_BYTES:
            give(lines)
            lines = b""
        lines += line
    give(lines)
    return {"more": len(behind) > limit}
