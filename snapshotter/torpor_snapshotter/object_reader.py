"""Reading an object from its beginning to its end."""

from __future__ import annotations

import hashlib
from typing import Final

from torpor_snapshotter.store import ObjectStore

_PIECE_BYTES: Final = 4 << 20


class EndOfObject(ValueError):
    """The object ends before what was asked for, or does not end where it should."""


class ObjectReader:
    """An object, piece by piece, digested on the way."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._hasher = hashlib.sha256()
        self._piece = b""
        self._taken = 0
        self.size_bytes = 0
        """What was read so far."""

    def sha256(self) -> str:
        """Hex digest of what was read so far."""
        return self._hasher.hexdigest()

    async def take(self, length: int) -> bytes:
        """The next `length` bytes. Raises `EndOfObject`."""
        while len(self._piece) - self._taken < length:
            rest = self._piece[self._taken :]
            if not await self._read():
                raise EndOfObject("it ends too early")
            self._piece = rest + self._piece
        taken = self._piece[self._taken : self._taken + length]
        self._taken += length
        return taken

    async def read_to_end(self) -> None:
        """Digest what is left."""
        while await self._read():
            pass

    async def expect_end(self) -> None:
        """Raise `EndOfObject` unless everything was taken."""
        if self._taken < len(self._piece) or await self._read():
            raise EndOfObject("it goes on after its end")

    async def _read(self) -> bool:
        self._piece = await self._store.read(self._key, self.size_bytes, _PIECE_BYTES)
        self._taken = 0
        self._hasher.update(self._piece)
        self.size_bytes += len(self._piece)
        return bool(self._piece)
