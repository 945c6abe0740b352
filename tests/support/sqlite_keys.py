"""A key store of another kind, as somebody else might add one: in a database, each key in the clear."""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from torpor_snapshotter.keys import KEY_BYTES, KeyMissing


class SqliteKeys:
    """Keys in the file that `sqlite-keys:///PATH` names."""

    def __init__(self, url: str) -> None:
        self._path = urlsplit(url).path

    def get(self, machine: str) -> bytes:
        """See `KeyStore`."""
        with self._database() as database:
            found = database.execute("SELECT key FROM keys WHERE machine = ?", [machine]).fetchone()
        if found is None:
            raise KeyMissing(f"The key of machine {machine} is not in {self._path}.")
        return bytes(found[0])

    def make(self, machine: str) -> bytes:
        """See `KeyStore`."""
        with self._database() as database:
            key = secrets.token_bytes(KEY_BYTES)
            database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", [machine, key])
        return self.get(machine)

    def destroy(self, machine: str) -> None:
        """See `KeyStore`."""
        with self._database() as database:
            database.execute("DELETE FROM keys WHERE machine = ?", [machine])

    def rotate(self) -> None:
        """See `KeyStore`; nothing protects the others."""
        with self._database() as database:
            if database.execute("SELECT count(*) FROM keys").fetchone()[0] == 0:
                raise KeyMissing(f"There are no keys in {self._path} yet.")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=60)
        try:
            with database:
                database.execute("CREATE TABLE IF NOT EXISTS keys (machine TEXT PRIMARY KEY, key BLOB NOT NULL)")
                yield database
        finally:
            database.close()
