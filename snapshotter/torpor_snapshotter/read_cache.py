"""What was read of a store's objects, kept on the local disk: packs and manifests that need not be fetched again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from torpor_snapshotter.store import ObjectStore

PIECE_BYTES: Final = 256 << 10
_DIGEST_BYTES: Final = 32
_PENDING_BYTES: Final = 64 << 20
"""What waits to be written; what comes while there is more is not kept."""


class ReadCache:
    """Reads objects of a store in pieces, and keeps them in a folder: `limit_bytes` of them, those used last.

    An object never changes, so that a piece is never stale; each has its digest with it, so that one which was torn
    or altered is read again. Pieces are written behind the answer, and nothing waits for the disk. Of an object whose
    content turns out to be damaged, `drop` what is here: it may have been damaged on its way.
    """

    def __init__(self, store: ObjectStore, folder: Path, limit_bytes: int) -> None:
        """Look through `folder`, which is this object's own; it is made with the first piece."""
        self._store = store
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """Bytes of each piece's file, in order of their last use."""
        self._size_bytes = 0
        self._lock = threading.Lock()
        """For the two above: pieces are read and written in threads."""
        self._writing: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0
        self._load()

    @property
    def size_bytes(self) -> int:
        """What the pieces take together."""
        return self._size_bytes

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """As `ObjectStore.read` does, and raises what that raises."""
        if length == 0:
            return await self._store.read(key, start, length)
        first = start // PIECE_BYTES
        last = None if length is None else (start + length - 1) // PIECE_BYTES
        pieces, missing = await asyncio.to_thread(self._recall, key, first, last)
        if missing is not None:
            from_missing = None if last is None else (last - missing + 1) * PIECE_BYTES
            data = await self._store.read(key, missing * PIECE_BYTES, from_missing)
            pieces.append(data)
            self.keep(key, missing, data)
        offset = start - first * PIECE_BYTES
        whole = b"".join(pieces)
        return whole[offset:] if length is None else whole[offset : offset + length]

    def keep(self, key: str, first: int, data: bytes) -> None:
        """Keep what was read of an object from piece `first` on; where `data` ends within a piece the object does."""
        if self._pending_bytes + len(data) > _PENDING_BYTES:
            return
        self._pending_bytes += len(data)
        task = asyncio.create_task(self._write(key, first, data), name=f"keep {key}")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def drop(self, key: str) -> None:
        """Forget what is here of an object."""
        if writing := set(self._writing):  # not what comes later: on a busy host there is always some
            await asyncio.wait(writing)
        await asyncio.to_thread(self._forget, _prefix(key))

    async def settled(self) -> None:
        """Wait until what was to be kept is."""
        while self._writing:
            await asyncio.wait(set(self._writing))

    def _recall(self, key: str, first: int, last: int | None) -> tuple[list[bytes], int | None]:
        """Pieces from the first one on, and the number of the first that is not here, None if none is missing."""
        pieces: list[bytes] = []
        number = first
        while last is None or number <= last:
            piece = self._piece(_name(key, number))
            if piece is None:
                return pieces, number
            pieces.append(piece)
            if len(piece) < PIECE_BYTES:
                break
            number += 1
        return pieces, None

    def _piece(self, name: str) -> bytes | None:
        if name not in self._sizes:
            return None
        path = self._folder / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            data = b""
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if digest != _digest(name, content):
            with self._lock:
                self._remove(name)
            return None
        with self._lock, suppress(KeyError):
            self._sizes.move_to_end(name)
        return content

    async def _write(self, key: str, first: int, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._write_pieces, key, first, data)
        finally:
            self._pending_bytes -= len(data)

    def _write_pieces(self, key: str, first: int, data: bytes) -> None:
        # One that ends exactly where a piece does may go on: an empty piece behind it would say that it does not.
        for number, start in enumerate(range(0, len(data), PIECE_BYTES), first):
            content = data[start : start + PIECE_BYTES]
            name = _name(key, number)
            aside = self._folder / f".{secrets.token_hex(8)}"
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                aside.write_bytes(_digest(name, content) + content)
                aside.replace(self._folder / name)
            except OSError:  # a full disk: the store has it
                with suppress(OSError):
                    aside.unlink()
                return
            with self._lock:
                self._add(name, _DIGEST_BYTES + len(content))
                self._make_room()

    def _add(self, name: str, size_bytes: int) -> None:
        self._size_bytes += size_bytes - self._sizes.pop(name, 0)
        self._sizes[name] = size_bytes

    def _make_room(self) -> None:
        while self._size_bytes > self._limit_bytes:
            self._remove(next(iter(self._sizes)))

    def _forget(self, prefix: str) -> None:
        with self._lock:
            for name in [name for name in self._sizes if name.startswith(prefix)]:
                self._remove(name)

    def _remove(self, name: str) -> None:
        self._size_bytes -= self._sizes.pop(name, 0)
        with suppress(OSError):
            (self._folder / name).unlink()

    def _load(self) -> None:
        found: list[tuple[float, str, int]] = []
        with suppress(OSError), os.scandir(self._folder) as entries:  # no cache is a reason not to start
            for entry in entries:
                if entry.name.startswith("."):  # a process died while it wrote it
                    Path(entry).unlink()
                else:
                    status = entry.stat()
                    found.append((status.st_mtime, entry.name, status.st_size))
        for _, name, size_bytes in sorted(found):
            self._add(name, size_bytes)
        self._make_room()


def _prefix(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:40] + "-"


def _name(key: str, number: int) -> str:
    return f"{_prefix(key)}{number}"


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + content).digest()
