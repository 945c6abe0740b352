"""Reading frames of packs from a store, each of them checked; the small ones that come up again and again are kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from torpor_snapshotter.known_pages import Digests, digests_from_bytes
from torpor_snapshotter.pack import BadFrame, Pack, decompress_file, unseal
from torpor_snapshotter.store import DamagedObject, Read

_KEPT_BYTES: Final = 1 << 20
"""Opened frames that are kept, so that a line's next save need not read them again."""
_PIECE_BYTES: Final = 4 << 20


class PackReader:
    """Frames of any pack. Damage is `DamagedObject`, with the pack's key in it."""

    def __init__(self, read: Read) -> None:
        """With the `read` of a store, or of a cache of one."""
        self._read = read
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._kept_bytes = 0

    async def sealed(self, pack: Pack, first: int, last: int) -> list[bytes]:
        """Frames `first` to `last`, as they are stored, in one read."""
        sizes = pack.frame_bytes[first : last + 1]
        data = await self._read(pack.key, sum(pack.frame_bytes[:first]), sum(sizes))
        if len(data) < sum(sizes):
            raise DamagedObject(f"The object {pack.key} is damaged: it ends too early.")
        frames, start = [], 0
        for size in sizes:
            frames.append(data[start : start + size])
            start += size
        return frames

    async def file(self, pack: Pack, frame: int, size_bytes: int, dictionary: bytes | None = None) -> bytes:
        """A small file; with the dictionary that it was compressed with, if it was with one."""
        if dictionary is not None:
            return await self._file(pack, frame, size_bytes, dictionary)
        if (kept := self._recall(pack, frame)) is not None:
            return kept
        content = await self._file(pack, frame, size_bytes, None)
        self._keep(pack, frame, content)
        return content

    async def digests(self, pack: Pack) -> Digests:
        """Digests of the pages of a pack."""
        content = self._recall(pack, pack.index_frame)
        if content is None:
            content = await self._unsealed(pack, pack.index_frame)
            self._keep(pack, pack.index_frame, content)
        return digests_from_bytes(content)

    async def differences(self, pack: Pack, frame: int) -> bytes:
        """A frame of differences, as it is compressed."""
        content = self._recall(pack, frame)
        if content is None:
            content = await self._unsealed(pack, frame)
            self._keep(pack, frame, content)
        return content

    async def verify(self, pack: Pack) -> None:
        """Read a whole pack. Raises `DamagedObject` unless each of its frames is as it was written, and `NotStored`."""
        first = 0
        while first < len(pack.frame_bytes):
            last, size_bytes = first, pack.frame_bytes[first]
            while last + 1 < len(pack.frame_bytes) and size_bytes + pack.frame_bytes[last + 1] <= _PIECE_BYTES:
                last += 1
                size_bytes += pack.frame_bytes[last]
            frames = await self.sealed(pack, first, last)
            try:
                await asyncio.to_thread(_open_all, pack, first, frames)
            except BadFrame as error:
                raise DamagedObject(f"The object {pack.key} is damaged: {error}.") from error
            first = last + 1
        if await self._read(pack.key, pack.size_bytes, 1):
            raise DamagedObject(f"The object {pack.key} is damaged: it is longer than it was written.")

    async def _file(self, pack: Pack, frame: int, size_bytes: int, dictionary: bytes | None) -> bytes:
        data = await self._unsealed(pack, frame)
        try:
            return await asyncio.to_thread(decompress_file, data, size_bytes, dictionary)
        except BadFrame as error:
            raise DamagedObject(f"The object {pack.key} is damaged: {error}.") from error

    async def _unsealed(self, pack: Pack, frame: int) -> bytes:
        (data,) = await self.sealed(pack, frame, frame)
        try:
            return unseal(data, pack.secret, frame)
        except BadFrame as error:
            raise DamagedObject(f"The object {pack.key} is damaged: {error}.") from error

    def _recall(self, pack: Pack, frame: int) -> bytes | None:
        kept = self._kept.get((pack.key, frame))
        if kept is not None:
            self._kept.move_to_end((pack.key, frame))
        return kept

    def _keep(self, pack: Pack, frame: int, content: bytes) -> None:
        if (pack.key, frame) in self._kept:
            return
        self._kept[pack.key, frame] = content
        self._kept_bytes += len(content)
        while self._kept_bytes > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped)


def _open_all(pack: Pack, first: int, frames: list[bytes]) -> None:
    for frame, data in enumerate(frames, first):
        unseal(data, pack.secret, frame)
