"""Packs to images, with everything checked on the way."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from torpor_snapshotter.manifest import Manifest
from torpor_snapshotter.pack import FRAME_PAGES, BadFrame, Pack, decompress_pages, unseal
from torpor_snapshotter.pack_reader import PackReader
from torpor_snapshotter.page_map import PAGE_BYTES, Numbers, PageMap, page_count, pages_of
from torpor_snapshotter.store import DamagedObject

_READ_BYTES: Final = 4 << 20
_READS_IN_HAND: Final = 4


async def decode(manifest: Manifest, reader: PackReader, into: Path, executor: Executor) -> None:
    """Write the image that `manifest` describes into the new folder `into`. Zero pages become holes.

    After an error `into` is gone. Raises `DamagedObject` if any byte is not as it was written, `NotStored`,
    `StoreError`, and `OSError` for `into`.
    """
    os.mkdir(into)
    try:
        await _decode(manifest, reader, into, executor)
    except BaseException:
        # A thread may still be writing a page: it creates nothing, so the folder goes all the same.
        shutil.rmtree(into)
        raise


async def _decode(manifest: Manifest, reader: PackReader, into: Path, executor: Executor) -> None:
    for file in manifest.files:
        whole = manifest.whole.get(file.name)
        if whole is None:
            continue
        dictionary = None
        if whole.dictionary is not None:
            pack = manifest.packs[whole.dictionary.pack]
            dictionary = await reader.file(pack, whole.dictionary.frame, whole.dictionary_bytes)
        pack = manifest.packs[whole.content.pack]
        content = await reader.file(pack, whole.content.frame, file.size_bytes, dictionary)
        await asyncio.to_thread((into / file.name).write_bytes, content)
    pages = _Pages(manifest, into)
    try:
        await _read_pages(manifest, reader, pages, executor, differences=False)
        await _read_pages(manifest, reader, pages, executor, differences=True)
    finally:
        pages.close()


async def _read_pages(
    manifest: Manifest, reader: PackReader, pages: _Pages, executor: Executor, *, differences: bool
) -> None:
    loop = asyncio.get_running_loop()

    async def read(run: list[_Wanted]) -> None:
        pack = manifest.packs[run[0].pack]
        for wanted, data in zip(run, await reader.sealed(pack, run[0].frame, run[-1].frame), strict=True):
            try:
                await loop.run_in_executor(executor, write, pack, wanted, data)
            except BadFrame as error:
                raise DamagedObject(f"The object {pack.key} is damaged: {error}.") from error

    write = pages.change if differences else pages.write
    page_map = manifest.differences if differences else manifest.page_map
    first_frames = [pack.page_frames if differences else 0 for pack in manifest.packs]
    wanted = await loop.run_in_executor(executor, _wanted_frames, page_map, first_frames)
    in_hand: deque[asyncio.Task[None]] = deque()
    try:
        for number, run in enumerate(_reads(wanted, manifest.packs)):
            in_hand.append(asyncio.create_task(read(run), name=f"read {number}"))
            if len(in_hand) == _READS_IN_HAND:
                await in_hand.popleft()
        while in_hand:
            await in_hand.popleft()
    finally:
        for task in in_hand:
            task.cancel()
        await asyncio.gather(*in_hand, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A frame, which of its pages an image has, and where."""

    pack: int
    frame: int
    pages: Numbers
    """In the frame."""
    places: Numbers
    """In the image, counted over all its files that are kept in pages; increasing."""


def _wanted_frames(page_map: PageMap, first_frames: list[int]) -> list[_Wanted]:
    references = page_map.references()
    places = np.flatnonzero(references)
    stored = references[places]
    # Pages of one frame share all bits of their references but the lowest: a frame has a power of two of them.
    frames = stored // np.uint64(FRAME_PAGES)
    order = np.argsort(frames, kind="stable")
    places, stored, frames = places[order], stored[order], frames[order]
    bounds = np.flatnonzero(np.diff(frames)) + 1
    wanted = []
    for some, at in zip(np.split(stored, bounds), np.split(places, bounds), strict=True):
        if len(some):
            pack, page = int(some[0] >> np.uint64(32)) - 1, int(some[0] & np.uint64(0xFFFFFFFF))
            wanted.append(_Wanted(pack, first_frames[pack] + page // FRAME_PAGES, pages_of(some) % FRAME_PAGES, at))
    return wanted


def _reads(wanted: list[_Wanted], packs: tuple[Pack, ...]) -> Iterator[list[_Wanted]]:
    """Frames that follow one another, as many as one read should have."""
    run: list[_Wanted] = []
    size_bytes = 0
    for one in wanted:
        frame_bytes = packs[one.pack].frame_bytes[one.frame]
        follows = bool(run) and (one.pack, one.frame) == (run[-1].pack, run[-1].frame + 1)
        if run and (not follows or size_bytes + frame_bytes > _READ_BYTES):
            yield run
            run, size_bytes = [], 0
        run.append(one)
        size_bytes += frame_bytes
    if run:
        yield run


class _Pages:
    """The files of an image that are kept in pages, sparse; pages may be written in any order and at once."""

    def __init__(self, manifest: Manifest, into: Path) -> None:
        self._sizes = [file.size_bytes for file in manifest.paged]
        self._starts = np.cumsum([0, *(page_count(size) for size in self._sizes)])
        self._descriptors = []
        for file in manifest.paged:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptors.append(os.open(into / file.name, flags, 0o600))
            os.truncate(self._descriptors[-1], file.size_bytes)

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def write(self, pack: Pack, wanted: _Wanted, data: bytes) -> None:
        """Open a frame and put its pages where they belong. Raises `BadFrame`."""
        for descriptor, offset, run in self._runs(pack, wanted, data):
            _write_all(descriptor, run, offset)

    def change(self, pack: Pack, wanted: _Wanted, data: bytes) -> None:
        """Open a frame of differences and XOR them with the pages that are there. Raises `BadFrame`."""
        for descriptor, offset, run in self._runs(pack, wanted, data):
            there = np.frombuffer(os.pread(descriptor, len(run), offset), np.uint8)
            _write_all(descriptor, memoryview((there ^ np.frombuffer(run, np.uint8)).tobytes()), offset)

    def _runs(self, pack: Pack, wanted: _Wanted, data: bytes) -> Iterator[tuple[int, int, memoryview]]:
        """Pages of a frame that follow one another: in which file, at which byte, and what they are."""
        content = decompress_pages(unseal(data, pack.secret, wanted.frame), pack.pages_in(wanted.frame))
        pages = np.frombuffer(content, np.uint8).reshape(-1, PAGE_BYTES)[wanted.pages]
        files = np.searchsorted(self._starts, wanted.places, side="right") - 1
        bounds = np.flatnonzero((np.diff(wanted.places) != 1) | (np.diff(files) != 0)) + 1
        for first, last in zip([0, *bounds.tolist()], [*bounds.tolist(), len(pages)], strict=True):
            file = int(files[first])
            offset = (int(wanted.places[first]) - int(self._starts[file])) * PAGE_BYTES
            run = memoryview(pages[first:last].tobytes())[: self._sizes[file] - offset]
            yield self._descriptors[file], offset, run


def _write_all(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
