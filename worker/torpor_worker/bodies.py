"""What changes of files write, kept on the host's disk until no recovery needs it: one file each, named by a key."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from torpor_worker.errors import WorkerError

BATCH_BYTES = 96 << 10
"""How much is written or read at once."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StorageFull(WorkerError):
    """The server's disk is full."""


@dataclass(frozen=True, slots=True)
class Body:
    """One that is whole and durable."""

    key: str
    size_bytes: int


class Bodies:
    """All that there are. What no entry of a log refers to, and nobody writes or reads, may be removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_use: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def stored(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Body]:
        """Store a body; it is durable, and kept for as long as this lasts and then if an entry refers to it.

        Raises `StorageFull`, with nothing left of it.
        """
        key = secrets.token_hex(16)
        self._in_use.add(key)
        try:
            yield Body(key, await self._store(key, pieces))
        finally:
            self._in_use.discard(key)

    async def pieces(self, key: str) -> AsyncIterator[bytes]:
        """What a body has. Raises `FileNotFoundError`."""
        with await asyncio.to_thread(self._path(key).open, "rb") as file:
            while data := await asyncio.to_thread(file.read, BATCH_BYTES):
                yield data

    def keys(self) -> Iterator[str]:
        """Of all that are here and that nobody writes just now."""
        yield from (name for name in os.listdir(self._folder) if name not in self._in_use)

    def remove(self, keys: Collection[str]) -> None:
        """Forget some; whoever reads one reads on."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    async def _store(self, key: str, pieces: AsyncIterator[bytes]) -> int:
        path = self._path(key)
        try:
            return await self._write(path, pieces)
        except BaseException as error:
            with suppress(OSError):
                path.unlink()
            if isinstance(error, OSError) and error.errno in FULL:
                raise StorageFull("The server's disk is full.") from error
            raise

    async def _write(self, path: Path, pieces: AsyncIterator[bytes]) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        size, batch, waiting_bytes = 0, list[bytes](), 0
        try:
            async for piece in pieces:
                batch.append(piece)  # as it is: of hundreds of uploads at once, each copy counts
                waiting_bytes += len(piece)
                if waiting_bytes >= BATCH_BYTES:
                    size += await asyncio.to_thread(_write_all, fd, batch)
                    batch, waiting_bytes = [], 0
            return size + await asyncio.to_thread(self._finish, fd, batch)
        finally:
            os.close(fd)

    def _finish(self, fd: int, rest: Sequence[bytes]) -> int:
        size = _write_all(fd, rest)
        os.fsync(fd)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size

    def _path(self, key: str) -> Path:
        return self._folder / key


def _write_all(fd: int, pieces: Sequence[bytes]) -> int:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]
    return sum(map(len, pieces))
