"""Objects as files in a folder of the host."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from torpor_snapshotter.key import PROBE_PREFIX, check_key, is_plain_name
from torpor_snapshotter.store import AlreadyStored, NotStored, StoreError

Answer = TypeVar("Answer")

_INCOMING: Final = ".incoming"


class FolderStore:
    """An `ObjectStore` in a folder: key `a/b` is the file `a/b` in it.

    An object is written to a file in `.incoming`, which no key can name, made durable, and only then linked to its
    key; so a key names a whole object or nothing, whatever dies. What a dead process left in `.incoming` is removed by
    `check` and before the first write.
    """

    def __init__(self, folder: Path) -> None:
        """Objects in `folder`, which is made when the first one is written."""
        self._folder = folder
        self._incoming = folder / _INCOMING
        self._swept = False

    async def check(self) -> None:
        """Write, read and delete an object, and remove what crashed writers left. Raises `StoreError`."""
        await self._in_thread(self._remove_leftovers)
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        written = secrets.token_bytes(64)

        async def body() -> AsyncIterator[bytes]:
            yield written

        await self.put_new(key, body())
        try:
            if await self.read(key) != written:
                raise StoreError(f"{self._folder} does not give back the bytes that were written to it.")
        finally:
            await self.delete(key)

    async def put_new(self, key: str, body: AsyncIterator[bytes]) -> int:
        """Store `body` durably; its size in bytes. Raises `AlreadyStored` if the key exists, with nothing changed."""
        check_key(key)
        target = self._folder / key
        incoming, descriptor = await self._in_thread(self._open_incoming)
        size_bytes = 0
        try:
            async for piece in body:
                await self._in_thread(partial(_write_all, descriptor, piece))
                size_bytes += len(piece)
            await self._in_thread(partial(self._publish, incoming, descriptor, target, key))
        finally:
            # The file may still be written to by a thread if we were cancelled; its name goes at once all the same.
            incoming.unlink(missing_ok=True)
            os.close(descriptor)
        return size_bytes

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes `start` to `start + length` (to the end for None). Raises `NotStored`."""
        check_key(key)
        return await self._in_thread(partial(_read, self._folder / key, key, start, length))

    async def delete(self, key: str) -> None:
        """Delete it; no error if it is not there."""
        check_key(key)
        await self._in_thread(partial(self._delete, self._folder / key))

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        """Every key that begins with `prefix`, in no order."""
        for key in await self._in_thread(lambda: list(self._keys())):
            if key.startswith(prefix):
                yield key

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        with _disk_errors_told(self._folder):
            return await asyncio.to_thread(work)

    def _open_incoming(self) -> tuple[Path, int]:
        _make_folder(self._incoming)
        if not self._swept:
            self._remove_leftovers()
            self._swept = True
        while True:
            incoming = self._incoming / secrets.token_hex(16)
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # tells `_remove_leftovers` that its writer lives
            if os.fstat(descriptor).st_nlink:
                return incoming, descriptor
            os.close(descriptor)  # another thread took it for a leftover before it was locked

    def _publish(self, incoming: Path, descriptor: int, target: Path, key: str) -> None:
        os.fsync(descriptor)
        while True:
            _make_folder(target.parent)
            try:
                os.link(incoming, target)
            except FileExistsError:
                raise AlreadyStored(f"{key} is stored already.") from None
            except FileNotFoundError:
                if not incoming.exists():
                    raise
                continue  # a delete removed the empty folder between the two calls
            break
        _sync_folder(target.parent)

    def _delete(self, target: Path) -> None:
        try:
            target.unlink(missing_ok=True)
            folder = target.parent
            while folder != self._folder:
                folder.rmdir()
                folder = folder.parent
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST, errno.ENOTDIR}:
                raise

    def _keys(self) -> Iterator[str]:
        root = str(self._folder)
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if is_plain_name(name)]
            prefix = "" if folder == root else os.path.relpath(folder, root) + "/"
            yield from (prefix + name for name in files if is_plain_name(name))

    def _remove_leftovers(self) -> None:
        if not self._incoming.is_dir():
            return
        for leftover in self._incoming.iterdir():
            try:
                descriptor = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)


@contextmanager
def _disk_errors_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError(f"The disk of {folder} is full: free some space on it.") from error
        raise StoreError(f"{folder} cannot be used as a store: {error}.") from error


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _read(path: Path, key: str, start: int, length: int | None) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotStored(f"{key} is not stored.") from None


def _make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durable."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
