"""What changes of files write, kept on the host's disk until no recovery needs it: one file each, named by a key.

All that one account has there counts: what a log refers to, what is still coming, and what is yet to be swept away.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from torpor_worker.errors import WorkerError

BATCH_BYTES = 96 << 10
"""How much is written or read at once."""
BLOCK_BYTES = 4 << 10
"""What the smallest file takes; each counts for so much more than what is in it."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StorageFull(WorkerError):
    """The server's disk is full, or the account has as much there as it may."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What all of them may take of the host's disk."""

    account_bytes: int = 16 << 30
    """Those of one account together."""
    reserve_bytes: int = 0
    """Nothing is taken that would leave less free on the disk: the log and saves are written there, too."""


@dataclass(frozen=True, slots=True)
class Body:
    """One that is whole and durable."""

    key: str
    size_bytes: int


class Bodies:
    """All that there are. What no entry of a log refers to, and nobody writes or reads, may be removed."""

    def __init__(self, folder: Path, limits: BodyLimits | None = None) -> None:
        self._folder = folder
        self._limits = limits or BodyLimits()
        self._in_use: set[str] = set()
        self._counted: dict[str, tuple[str, int]] = {}
        """Account and bytes by key; of what a server before this one has left, only what `count` was told of."""
        self._used: Counter[str] = Counter()
        """Bytes by account."""
        folder.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def stored(
        self, account: str, pieces: AsyncIterator[bytes], size_bytes: int | None = None
    ) -> AsyncIterator[Body]:
        """Store a body; it is durable, and kept for as long as this lasts and then if an entry refers to it.

        `size_bytes` is how many are to come, if that is known. Raises `StorageFull`, with nothing left of it: before
        any is taken if they are too many, else once they are.
        """
        self._check_account(account, BLOCK_BYTES + (size_bytes or 0))
        await asyncio.to_thread(self._check_disk, size_bytes or 0)
        key = secrets.token_hex(16)
        self._in_use.add(key)
        try:
            yield Body(key, await self._store(account, key, pieces))
        finally:
            self._in_use.discard(key)

    def count(self, accounts: Mapping[str, str]) -> None:
        """Count what is here from before: accounts by key."""
        for key, account in accounts.items():
            with suppress(FileNotFoundError):
                self._add(account, key, BLOCK_BYTES + self._path(key).stat().st_size)

    async def pieces(self, key: str) -> AsyncIterator[bytes]:
        """What a body has. Raises `FileNotFoundError`."""
        with await asyncio.to_thread(self._path(key).open, "rb") as file:
            while data := await asyncio.to_thread(file.read, BATCH_BYTES):
                yield data

    def keys(self) -> Iterator[str]:
        """Of all that are here and that nobody writes just now."""
        yield from (name for name in os.listdir(self._folder) if name not in self._in_use)

    async def remove(self, keys: Collection[str]) -> None:
        """Forget some; whoever reads one reads on."""
        await asyncio.to_thread(self._unlink, keys)
        for key in keys:
            self._forget(key)

    def _unlink(self, keys: Collection[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def _check_account(self, account: str, size_bytes: int) -> None:
        limit_bytes = self._limits.account_bytes
        if self._used[account] + size_bytes > limit_bytes:
            raise StorageFull(f"Of what one account uploads the server keeps {limit_bytes >> 20} MiB at most.")

    def _check_disk(self, size_bytes: int) -> None:
        if shutil.disk_usage(self._folder).free - size_bytes < self._limits.reserve_bytes:
            raise StorageFull("The server's disk is full, but for what is kept free for its log and for saves.")

    def _add(self, account: str, key: str, size_bytes: int) -> None:
        _, before = self._counted.get(key, (account, 0))
        self._counted[key] = account, before + size_bytes
        self._used[account] += size_bytes

    def _forget(self, key: str) -> None:
        if key in self._counted:
            account, size_bytes = self._counted.pop(key)
            self._used[account] -= size_bytes
            if not self._used[account]:
                del self._used[account]

    async def _store(self, account: str, key: str, pieces: AsyncIterator[bytes]) -> int:
        path = self._path(key)
        self._add(account, key, BLOCK_BYTES)
        try:
            return await self._write(account, key, pieces)
        except BaseException as error:
            with suppress(OSError):
                path.unlink()
            self._forget(key)
            if isinstance(error, OSError) and error.errno in FULL:
                raise StorageFull("The server's disk is full.") from error
            raise

    async def _write(self, account: str, key: str, pieces: AsyncIterator[bytes]) -> int:
        fd = os.open(self._path(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        size, batch, waiting_bytes = 0, list[bytes](), 0
        try:
            async for piece in pieces:
                batch.append(piece)  # as it is: of hundreds of uploads at once, each copy counts
                waiting_bytes += len(piece)
                if waiting_bytes >= BATCH_BYTES:
                    self._take(account, key, waiting_bytes)
                    size += await _to_end(self._put, fd, batch)
                    batch, waiting_bytes = [], 0
            self._take(account, key, waiting_bytes)
            return size + await _to_end(self._finish, fd, batch)
        finally:
            os.close(fd)

    def _take(self, account: str, key: str, size_bytes: int) -> None:
        self._check_account(account, size_bytes)
        self._add(account, key, size_bytes)

    def _put(self, fd: int, batch: Sequence[bytes]) -> int:
        self._check_disk(sum(map(len, batch)))
        return _write_all(fd, batch)

    def _finish(self, fd: int, rest: Sequence[bytes]) -> int:
        size = self._put(fd, rest)
        os.fsync(fd)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size

    def _path(self, key: str) -> Path:
        return self._folder / key


async def _to_end(work: Callable[[int, Sequence[bytes]], int], fd: int, pieces: Sequence[bytes]) -> int:
    """Do it in a thread, to its end though this be cancelled: another file may get the number of one that is closed."""
    writing = asyncio.ensure_future(asyncio.to_thread(work, fd, pieces))
    try:
        return await asyncio.shield(writing)
    finally:
        while not writing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([writing])


def _write_all(fd: int, pieces: Sequence[bytes]) -> int:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]
    return sum(map(len, pieces))
