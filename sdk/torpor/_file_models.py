"""What the server tells of a machine's files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

from ._models import Record


class FileInfo(Record):
    """A file, a folder, or something else in a machine."""

    name: str
    """The last part of its path."""
    path: str
    """As the other methods take it; bytes that are no UTF-8 stand as `os.fsdecode` has them."""
    kind: str
    """`file`, `folder`, `link`, `fifo`, `socket` or `device`."""
    size: int
    mode: int
    """Permissions, as `stat.S_IMODE` has them."""
    modified: datetime
    target: str | None = None
    """Where a link leads."""
    sha256: str | None = None
    """Of a file's bytes, if it was asked for."""
    tag: str | None = None
    """Another one when the file is another; only of what was looked at by itself."""


class ListedFile(Record):
    """An entry of a list, as it is sent."""

    name: str
    path: str
    kind: str
    size: int
    mode: str
    modified: datetime
    target: str | None = None


class FileList(Record):
    """A page of a folder's entries."""

    entries: tuple[ListedFile, ...]
    next_cursor: str | None = None


class Written(Record):
    """What was written."""

    size: int
    sha256: str


def listed(entry: ListedFile) -> FileInfo:
    """An entry of a list."""
    path = unquote_to_bytes(entry.path).decode("utf-8", "surrogateescape")
    return FileInfo(
        name=path.rstrip("/").rpartition("/")[2],
        path=path,
        kind=entry.kind,
        size=entry.size,
        mode=int(entry.mode, 8),
        modified=entry.modified,
        target=entry.target,
    )


def looked_at(path: str, headers: Mapping[str, str]) -> FileInfo:
    """What was looked at by itself, from the headers of the answer."""
    modified = headers.get("Last-Modified")
    return FileInfo(
        name=path.rstrip("/").rpartition("/")[2],
        path=path,
        kind=headers.get("Torpor-Kind", "file"),
        size=int(headers.get("Content-Length", "0")),
        mode=int(headers.get("Torpor-Mode", "0"), 8),
        modified=datetime.fromtimestamp(0, timezone.utc) if modified is None else parsedate_to_datetime(modified),
        sha256=headers.get("Torpor-SHA256"),
        tag=headers.get("ETag"),
    )
