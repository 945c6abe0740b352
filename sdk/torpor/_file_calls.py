"""What is asked of the server about files, as values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from ._calls import Call, _machine

TRANSFER_SECONDS = 300.0
"""How long a server may say nothing: it wakes the machine, and makes a change durable."""

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True)
class FileCall(Call):
    """A request about a file, with headers of its own."""

    more: tuple[tuple[str, str], ...] = field(default=())

    @property
    def headers(self) -> dict[str, str]:
        """Headers of this call alone."""
        return {**super().headers, **dict(self.more)}


def text_of(path: Path) -> str:
    """A path as text; bytes that are no UTF-8 stand as `os.fsdecode` has them."""
    found = os.fspath(path)
    return found if isinstance(found, str) else found.decode("utf-8", "surrogateescape")


def _quoted(path: str) -> str:
    return quote(path.encode("utf-8", "surrogateescape"), safe="")


def _file(method: str, machine: str, path: str, query: dict[str, str | int] | None = None) -> FileCall:
    # One segment, with its slashes encoded: nobody on the way takes dots or slashes out of it.
    address = _machine(machine, f"/files/{_quoted(path)}")
    return FileCall(method, address, query=query or {}, answer_seconds=TRANSFER_SECONDS)


def entries(machine: str, path: str, cursor: str | None) -> Call:
    """A page of a folder's entries."""
    query = [f"path={_quoted(path)}"] if path else []
    if cursor is not None:
        query.append(f"cursor={cursor}")
    address = _machine(machine, "/files") + ("?" + "&".join(query) if query else "")
    return Call("GET", address, answer_seconds=TRANSFER_SECONDS)


def look(machine: str, path: str, *, digest: bool) -> Call:
    """What is there."""
    return _file("HEAD", machine, path, {"digest": "sha256"} if digest else None)


def read(machine: str, path: str, start: int, stop: int | None, tag: str | None) -> Call:
    """A file's bytes from `start` to `stop`, if it is still the one with this tag."""
    more = [("Range", f"bytes={start}-{'' if stop is None else stop - 1}")] if start or stop else []
    if tag is not None:
        more.append(("If-Match", tag))
    return replace(_file("GET", machine, path), more=tuple(more))


def archive(machine: str, path: str) -> Call:
    """A folder as an archive."""
    return _file("GET", machine, path, {"archive": "tar"})


def write(machine: str, path: str, mode: int | None) -> Call:
    """A file's new content."""
    return _file("PUT", machine, path, None if mode is None else {"mode": f"{mode & 0o7777:04o}"})


def unpack(machine: str, path: str) -> Call:
    """An archive to be unpacked into a folder."""
    return _file("PUT", machine, path, {"archive": "tar"})


def remove(machine: str, path: str, *, recursive: bool) -> Call:
    """The end of a file or a folder."""
    return _file("DELETE", machine, path, {"recursive": "true"} if recursive else None)
