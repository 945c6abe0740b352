"""Images to packs: what an image has that its line does not, and the manifest that puts both together."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from torpor_snapshotter.compaction import PackUse, packs_to_rewrite
from torpor_snapshotter.earlier import EarlierFile, FrameKey, StoredDifferences
from torpor_snapshotter.image import ImageFile, read_chunk
from torpor_snapshotter.known_pages import DIGEST_BYTES, Digests, KnownPages
from torpor_snapshotter.manifest import FrameAddress, Manifest, WholeFile, is_kept_whole
from torpor_snapshotter.pack import (
    FRAME_BYTES,
    FRAME_PAGES,
    TAG_BYTES,
    Pack,
    compress_differences,
    compress_file,
    compress_pages,
    new_secret,
    seal,
)
from torpor_snapshotter.pack_reader import PackReader
from torpor_snapshotter.page_map import PageMap, References, packs_of, page_count, pages_of
from torpor_snapshotter.page_sorter import PageSorter, Taken
from torpor_snapshotter.store import DamagedObject, NotStored

CHUNK_BYTES: Final = 4 << 20
_FRAMES_IN_HAND: Final = 4
_MOST_DIFFERENCES_BYTES: Final = 32 << 20
"""How much of differences, compressed, is kept in memory; pages beyond that are stored as they are."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The snapshot that a new one is like: the generation before it, or a template."""

    manifest: Manifest
    image: Path | None
    """The folder of its image, if that is on the local disk: comparing with it is faster than digesting."""


class Encoder:
    """Encodes one image. `pieces` gives the pack; `manifest` is there when all of them were taken.

    Reading, digesting and compressing happen in the threads of an executor; memory stays bounded whatever the image's
    size, but for some bytes a page.
    """

    def __init__(
        self,
        image: Path,
        files: tuple[ImageFile, ...],
        parent: Parent | None,
        reader: PackReader,
        executor: Executor,
        pack_key: str,
    ) -> None:
        self._image = image
        self._files = files
        self._parent = parent
        self._reader = reader
        self._executor = executor
        self._pack_key = pack_key
        self._secret = new_secret()
        self._packs: tuple[Pack, ...] = () if parent is None else parent.manifest.packs
        self._digest_key = secrets.token_bytes(32) if parent is None else parent.manifest.digest_key
        self._kept: list[bool] = []
        self._sorter = PageSorter(KnownPages({}), [], self._digest_key)
        self._frame_bytes: list[int] = []
        self._differences = _Differences()
        self._whole: dict[str, WholeFile] = {}

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The frames of the pack, in order. Raises `BadImage` if a file changes meanwhile, `StoreError`."""
        known = await self._known_pages()
        self._sorter = PageSorter(known, self._kept, self._digest_key)
        async with aclosing(self._page_frames()) as frames:
            async for frame in frames:
                yield self._counted(frame)
        for compressed in await self._run(self._differences.frames):
            yield self._counted(await self._sealed(compressed, len(self._frame_bytes)))
        for file in self._files:
            if is_kept_whole(file):
                yield self._counted(await self._whole_frame(file))
        yield self._counted(await self._sealed(self._sorter.digests(), len(self._frame_bytes)))

    def manifest(self, fields: dict[str, Any]) -> Manifest:
        """Of the image, with the packs that it needs."""
        new_pages, new_differences = self._sorter.new_pages, self._sorter.new_differences
        own = Pack(self._pack_key, self._secret, new_pages, new_differences, tuple(self._frame_bytes))
        packs = [*self._packs, own]
        references, differences = self._sorter.references(), self._sorter.differences()
        addresses = [one for file in self._whole.values() for one in (file.content, file.dictionary) if one is not None]
        of_pages = np.union1d(packs_of(references[references != 0]), packs_of(differences[differences != 0])).tolist()
        used = sorted({*of_pages, *(one.pack for one in addresses), len(packs) - 1})
        page_map, difference_map = (PageMap.of(_moved(each, used)) for each in (references, differences))

        def moved(address: FrameAddress) -> FrameAddress:
            return replace(address, pack=used.index(address.pack))

        whole = {
            name: replace(
                file,
                content=moved(file.content),
                dictionary=None if file.dictionary is None else moved(file.dictionary),
            )
            for name, file in self._whole.items()
        }
        kept = tuple(packs[place] for place in used)
        return Manifest(fields, self._files, whole, kept, page_map, difference_map, self._digest_key)

    async def _known_pages(self) -> KnownPages:
        """Pages of the parent's packs, but for those that are to go, or cannot be read: they are stored again."""
        if self._parent is None:
            return KnownPages({})
        left = await self._run(packs_left_behind, self._parent.manifest)
        digests: dict[int, Digests] = {}
        for place, pack in enumerate(self._packs):
            if place not in left:
                try:
                    digests[place] = await self._reader.digests(pack)
                except (DamagedObject, NotStored):
                    continue
        self._kept = [place in digests for place in range(len(self._packs))]
        known: KnownPages = await self._run(KnownPages, digests)
        return known

    async def _page_frames(self) -> AsyncGenerator[bytes, None]:
        pending = bytearray()
        number = 0
        in_hand: deque[asyncio.Future[bytes]] = deque()
        try:
            for file in self._files:
                if is_kept_whole(file):
                    continue
                earlier = await self._earlier(file.name)
                for start in range(0, file.size_bytes, CHUNK_BYTES):
                    taken = await self._run(self._take, file, start, earlier)
                    await self._run(self._differences.add, taken.differences)
                    pending += taken.pages
                    while len(pending) >= FRAME_BYTES:
                        in_hand.append(self._run(_seal_pages, bytes(pending[:FRAME_BYTES]), self._secret, number))
                        number += 1
                        del pending[:FRAME_BYTES]
                        if len(in_hand) == _FRAMES_IN_HAND:
                            yield await in_hand.popleft()
            if pending:
                in_hand.append(self._run(_seal_pages, bytes(pending), self._secret, number))
            while in_hand:
                yield await in_hand.popleft()
        finally:
            for future in in_hand:
                future.cancel()

    def _take(self, file: ImageFile, start: int, earlier: EarlierFile) -> Taken:
        chunk = read_chunk(self._image / file.name, start, min(CHUNK_BYTES, file.size_bytes - start))
        may_differ = self._differences.size_bytes < _MOST_DIFFERENCES_BYTES
        return self._sorter.take(chunk, page_count(start), earlier, may_differ=may_differ)

    async def _earlier(self, name: str) -> EarlierFile:
        """The parent's file of that name, with its differences; those that cannot be read are left out."""
        first = 0
        for file in () if self._parent is None else self._parent.manifest.paged:
            pages = page_count(file.size_bytes)
            if self._parent is not None and self._parent.image is not None and file.name == name:
                part = slice(first, first + pages)
                references = (await self._run(self._parent.manifest.page_map.references))[part]
                differences = (await self._run(self._parent.manifest.differences.references))[part]
                stored = StoredDifferences(self._packs, await self._frames_of(differences))
                return EarlierFile(self._parent.image / name, file.size_bytes, references, differences, stored)
            first += pages
        return EarlierFile()

    async def _frames_of(self, differences: References) -> dict[FrameKey, bytes]:
        """The frames that some differences are in, but for those that cannot be read or would take too much memory."""
        frames: dict[FrameKey, bytes] = {}
        size_bytes = 0
        firsts = np.unique(differences[differences != 0] // np.uint64(FRAME_PAGES)) * np.uint64(FRAME_PAGES)
        for place, page in zip(packs_of(firsts).tolist(), pages_of(firsts).tolist(), strict=True):
            pack, number = self._packs[place], page // FRAME_PAGES
            size_bytes += pack.frame_bytes[pack.page_frames + number]
            if size_bytes > _MOST_DIFFERENCES_BYTES:
                break
            with suppress(DamagedObject, NotStored):
                frames[place, number] = await self._reader.differences(pack, pack.page_frames + number)
        return frames

    async def _whole_frame(self, file: ImageFile) -> bytes:
        """The frame of a small file: with the line's earlier state as dictionary, unless that gains too little."""
        content = await self._run(read_chunk, self._image / file.name, 0, file.size_bytes)
        frame = len(self._frame_bytes)
        own = FrameAddress(len(self._packs), frame)
        base, base_bytes = self._base(file.name)
        dictionary = None
        if base is not None and base_bytes and self._kept[base.pack]:
            try:
                dictionary = await self._reader.file(self._packs[base.pack], base.frame, base_bytes)
            except (DamagedObject, NotStored):
                dictionary = None
        compressed = await self._run(compress_file, content, None)
        self._whole[file.name] = WholeFile(own, None, 0)
        if dictionary is not None:
            shorter = await self._run(compress_file, content, dictionary)
            if 2 * len(shorter) <= len(compressed):
                compressed = shorter
                self._whole[file.name] = WholeFile(own, base, base_bytes)
        return await self._sealed(compressed, frame)

    def _base(self, name: str) -> tuple[FrameAddress | None, int]:
        """The newest state of the file on the line that is stored without a dictionary, and its size."""
        if self._parent is None or name not in self._parent.manifest.whole:
            return None, 0
        return base_of(self._parent.manifest, name)

    def _sealed(self, content: bytes, frame: int) -> asyncio.Future[bytes]:
        return self._run(seal, content, self._secret, frame)

    def _counted(self, frame: bytes) -> bytes:
        self._frame_bytes.append(len(frame))
        return frame

    def _run(self, work: Any, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def packs_left_behind(manifest: Manifest) -> set[int]:
    """Places of the packs that the next save on top of this snapshot does not refer to any more."""
    references = np.unique(manifest.page_map.references())
    live_pages = np.bincount(packs_of(references[references != 0]), minlength=len(manifest.packs))
    differences = np.unique(manifest.differences.references())
    live_differences = np.bincount(packs_of(differences[differences != 0]), minlength=len(manifest.packs))
    live_files = [0] * len(manifest.packs)
    for name in manifest.whole:
        base, _ = base_of(manifest, name)
        live_files[base.pack] += manifest.packs[base.pack].frame_bytes[base.frame]
    uses = []
    for place, pack in enumerate(manifest.packs):
        pages_bytes = sum(pack.frame_bytes[: pack.page_frames]) + DIGEST_BYTES * pack.pages
        live_bytes = pages_bytes * int(live_pages[place]) // max(pack.pages, 1)
        differences_bytes = sum(pack.frame_bytes[pack.page_frames : pack.page_frames + pack.difference_frames])
        live_bytes += differences_bytes * int(live_differences[place]) // max(pack.differences, 1)
        uses.append(PackUse(pack.size_bytes - TAG_BYTES, live_bytes + live_files[place]))
    return packs_to_rewrite(uses)


def base_of(manifest: Manifest, name: str) -> tuple[FrameAddress, int]:
    """Where the state of a small file is that the next save compresses it with, and its size."""
    whole = manifest.whole[name]
    if whole.dictionary is not None:
        return whole.dictionary, whole.dictionary_bytes
    return whole.content, next(file.size_bytes for file in manifest.files if file.name == name)


class _Differences:
    """Differences, compressed, until their frames can be numbered: behind all frames of pages."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._compressed: list[bytes] = []
        self.size_bytes = 0

    def add(self, pages: bytes) -> None:
        self._pending += pages
        while len(self._pending) >= FRAME_BYTES:
            self._compress()

    def frames(self) -> list[bytes]:
        if self._pending:
            self._compress()
        return self._compressed

    def _compress(self) -> None:
        self._compressed.append(compress_differences(bytes(self._pending[:FRAME_BYTES])))
        self.size_bytes += len(self._compressed[-1])
        del self._pending[:FRAME_BYTES]


def _moved(references: References, used: list[int]) -> References:
    """The same pages, with packs counted in a list of those that are used."""
    stored = references != 0
    packs = np.searchsorted(np.array(used, np.int64), packs_of(references[stored])).astype(np.uint64)
    moved = np.zeros(len(references), np.uint64)
    moved[stored] = packs + np.uint64(1) << np.uint64(32) | pages_of(references[stored]).astype(np.uint64)
    return moved


def _seal_pages(pages: bytes, secret: bytes, frame: int) -> bytes:
    return seal(compress_pages(pages, frame), secret, frame)
