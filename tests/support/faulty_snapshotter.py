"""A real snapshotter process whose store fails as a file says: see `FaultySnapshotter`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from torpor_snapshotter.config import read_config
from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.key_store_url import open_key_store
from torpor_snapshotter.server import SnapshotterServer
from torpor_snapshotter.store_url import open_store
from torpor_worker.snapshotter_process import SnapshotterProcess


class FaultySnapshotter(SnapshotterProcess):
    """Its process has a folder store in `folder`; each call of that has the fault of the moment."""

    def __init__(self, folder: Path) -> None:
        self._fault = folder / "fault"
        super().__init__(
            (folder / "store").as_uri(),
            (folder / "keys").as_uri(),
            program=(sys.executable, "-P", __file__, str(self._fault)),
        )

    def have(self, fault: Fault | None) -> None:
        """From now on, in every call."""
        aside = self._fault.with_suffix(".new")
        aside.write_text(fault or "")
        aside.rename(self._fault)


class _Store(FaultyStore):
    """Looks at the file before each call."""

    def __init__(self, url: str, file: Path) -> None:
        super().__init__(open_store(url))
        self._file = file

    def _look(self) -> None:
        said = self._file.read_text() if self._file.exists() else ""
        self.fault = Fault(said) if said else None

    async def check(self) -> None:
        self._look()
        await super().check()

    async def put_new(self, key: str, body: AsyncIterator[bytes]) -> int:
        self._look()
        return await super().put_new(key, body)

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._look()
        return await super().read(key, start, length)

    async def delete(self, key: str) -> None:
        self._look()
        await super().delete(key)


async def _serve(file: Path, flags: list[str]) -> None:
    config = read_config(flags, {})
    connection = socket.socket(fileno=config.socket_fd)
    connection.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    await SnapshotterServer(_Store(config.store_url, file), open_key_store(config.keys_url)).serve(reader, writer)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2:]))
