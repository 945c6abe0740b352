"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.store import ObjectStore


class BadStoreUrl(ValueError):
    """A URL that names no store; the message says what would."""


def open_store(url: str) -> ObjectStore:
    """The store at `url`: `file:///absolute/folder`. Raises `BadStoreUrl`; touches nothing yet."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise BadStoreUrl(
            f"The store URL {url!r} cannot be used: only folders are stores yet, as in file:///srv/torpor."
        )
    folder = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not folder.startswith("/") or parts.query or parts.fragment:
        raise BadStoreUrl(f"The store URL {url!r} names no folder of this host; write it as file:///srv/torpor.")
    return FolderStore(Path(folder))
