"""The seam between snapshots and where they are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class StoreError(Exception):
    """The store refused or failed; the message says what to do."""


class AlreadyStored(StoreError):
    """The key exists; nothing was changed."""


class NotStored(StoreError):
    """No object has this key."""


class DamagedObject(StoreError):
    """An object's bytes are not those that were written; the message names its key."""


class Read(Protocol):
    """As `ObjectStore.read`."""

    async def __call__(self, key: str, start: int = 0, length: int | None = None, /) -> bytes:
        """Bytes of an object."""
        ...


class ObjectStore(Protocol):
    """Where packs and manifests live. Keys are immutable: an object is written once or not at all."""

    async def check(self) -> None:
        """Raise `StoreError` if objects cannot be written, read and deleted."""
        ...

    async def put_new(self, key: str, body: AsyncIterator[bytes]) -> int:
        """Store `body` durably; its size in bytes. Raises `AlreadyStored` if the key exists, with nothing changed."""
        ...

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes `start` to `start + length` (to the end for None). Raises `NotStored`."""
        ...

    async def delete(self, key: str) -> None:
        """Delete it; no error if it is not there."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[str]:
        """Every key that begins with `prefix`, in no order."""
        ...
