"""Which key store a URL means."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from torpor_snapshotter.keys import FolderKeyStore, KeyStore

GROUP: Final = "torpor.key_stores"
"""Entry points of other distributions, by the scheme of their URLs: what takes such a URL and gives a `KeyStore`."""


class BadKeyStoreUrl(ValueError):
    """A URL that names no key store; the message says what would."""


def open_key_store(url: str) -> KeyStore:
    """The key store at `url`: `file:///absolute/folder`, or what an installed distribution makes of another scheme.

    Raises `BadKeyStoreUrl`; a folder is not touched yet.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:  # not repeated: it may be a secret
        raise BadKeyStoreUrl("A key store URL holds no credentials: it is seen in the list of processes.")
    if parts.scheme == "file":
        folder = unquote(parts.path)
        if parts.netloc not in {"", "localhost"} or not folder.startswith("/") or parts.query or parts.fragment:
            raise BadKeyStoreUrl(f"The key store URL {url!r} names no folder of this host; use file:///srv/keys.")
        return FolderKeyStore(Path(folder))
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if (found := others.get(parts.scheme)) is None:
        known = " or ".join(f"{name}:" for name in ("file", *sorted(others)))
        raise BadKeyStoreUrl(
            f"The key store URL {url!r} cannot be used: write a folder as file:///srv/keys. "
            f"What is installed knows URLs that begin with {known}."
        )
    store: KeyStore = found.load()(url)
    return store
