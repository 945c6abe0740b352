"""A store that fails on purpose, for tests of whatever uses one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum

from torpor_snapshotter.store import NotStored, ObjectStore, StoreError


class Fault(StrEnum):
    """What goes wrong."""

    SLOW = "slow"
    """Writes stop after their first piece, and reads before theirs, until `FaultyStore.go_on` is set."""
    FULL = "full"
    """Writes fail after their first piece."""
    REFUSING = "refusing"
    """Every call fails."""
    CUT = "cut"
    """Writes are done, but fail all the same; reads and deletions fail."""
    WRONG_WRITE = "wrong write"
    """One bit of what is written is another."""
    WRONG_READ = "wrong read"
    """One bit of what is read is another."""
    MISSING = "missing"
    """Objects cannot be found."""


class FaultyStore:
    """An `ObjectStore` that passes calls on to another, with the fault that `fault` names; None for none."""

    def __init__(self, inner: ObjectStore, fault: Fault | None = None) -> None:
        self._inner = inner
        self.fault = fault
        self.go_on = asyncio.Event()
        """Set it to end the waiting of `Fault.SLOW`."""
        self.waiting = asyncio.Event()
        """Set while a call waits for `go_on`."""

    async def check(self) -> None:
        """As the inner store, unless it is refusing or full."""
        if self.fault in {Fault.REFUSING, Fault.FULL}:
            raise StoreError(f"The store is {self.fault}.")
        await self._inner.check()

    async def put_new(self, key: str, body: AsyncIterator[bytes]) -> int:
        """As the inner store; see `Fault`."""
        self._refuse()
        size_bytes = await self._inner.put_new(key, self._faulty(body))
        self._cut()
        return size_bytes

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """As the inner store; see `Fault`."""
        self._refuse()
        self._cut()
        if self.fault is Fault.MISSING:
            raise NotStored(f"{key} is not stored.")
        await self._wait_if_slow()
        data = await self._inner.read(key, start, length)
        return _flipped(data) if self.fault is Fault.WRONG_READ else data

    async def delete(self, key: str) -> None:
        """As the inner store, unless it is refusing or cut."""
        self._refuse()
        self._cut()
        await self._inner.delete(key)

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        """As the inner store; nothing if objects are missing."""
        self._refuse()
        if self.fault is not Fault.MISSING:
            async for key in self._inner.list(prefix):
                yield key

    def _refuse(self) -> None:
        if self.fault is Fault.REFUSING:
            raise StoreError("The store refuses.")

    def _cut(self) -> None:
        if self.fault is Fault.CUT:
            raise StoreError("The connection to the store was cut.")

    async def _faulty(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        first = True
        async for piece in body:
            yield _flipped(piece) if first and self.fault is Fault.WRONG_WRITE else piece
            if first and self.fault is Fault.FULL:
                raise StoreError("The store is full.")
            if first:
                await self._wait_if_slow()
            first = False

    async def _wait_if_slow(self) -> None:
        if self.fault is Fault.SLOW:
            self.waiting.set()
            await self.go_on.wait()
            self.waiting.clear()


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
