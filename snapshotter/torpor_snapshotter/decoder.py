"""Packs to images, with everything checked on the way."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np

from torpor_snapshotter.local_pages import LocalImage, LocalPages
from torpor_snapshotter.manifest import Manifest
from torpor_snapshotter.pack import FRAME_PAGES, BadFrame, Pack, decompress_pages, unseal
from torpor_snapshotter.pack_reader import PackReader
from torpor_snapshotter.page_map import PAGE_BYTES, Numbers, PageMap, page_count, pages_of
from torpor_snapshotter.store import DamagedObject

Answer = TypeVar("Answer")

_READ_BYTES: Final = 4 << 20
_READS_IN_HAND: Final = 16
_BYTES_IN_HAND: Final = 16 << 20


async def decode(
    manifest: Manifest, reader: PackReader, into: Path, executor: Executor, local: LocalImage | None = None
) -> float:
    """Write the image that `manifest` describes into the new folder `into`. Zero pages become holes.

    Pages that `local` has too are copied from there. How many seconds of it came after the last read from the store.
    After an error `into` is gone. Raises `DamagedObject` if any byte is not as it was written, `NotStored`,
    `StoreError`, and `OSError` for `into`.
    """
    os.mkdir(into)
    try:
        return await _Decoding(manifest, reader, into, executor).run(local)
    except BaseException:
        shutil.rmtree(into)
        raise


class _Decoding:
    """One image being put together. What does not wait for something else is done at once."""

    def __init__(self, manifest: Manifest, reader: PackReader, into: Path, executor: Executor) -> None:
        self._manifest = manifest
        self._reader = reader
        self._into = into
        self._executor = executor
        self._in_threads: set[Future[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._last_read = self._loop.time()

    async def run(self, local_image: LocalImage | None) -> float:
        with ExitStack() as files:
            pages = files.enter_context(_Pages(self._manifest, self._into))
            local = None
            if local_image is not None:
                with suppress(OSError):  # it was given up meanwhile; the store has all of it
                    local = files.enter_context(LocalPages(local_image))
            try:
                parts = [self._whole_files(), self._all_pages(pages, local)]
                await _all([self._loop.create_task(part, name="decode") for part in parts])
            finally:
                # Not before: another file may get the number of one that is closed, and a thread would write to it.
                await asyncio.shield(asyncio.to_thread(_close, files.pop_all(), set(self._in_threads)))
        return self._loop.time() - self._last_read

    async def _in_thread(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        future = self._executor.submit(work, *arguments)
        self._in_threads.add(future)
        future.add_done_callback(self._in_threads.discard)
        return await asyncio.wrap_future(future)

    async def _whole_files(self) -> None:
        manifest, reader = self._manifest, self._reader
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
            self._last_read = self._loop.time()
            await asyncio.to_thread((self._into / file.name).write_bytes, content)

    async def _all_pages(self, pages: _Pages, local: LocalPages | None) -> None:
        if local is None:
            await self._read_pages(pages, None, differences=False)
        else:
            await self._in_thread(local.match, self._manifest)
            parts = [self._in_thread(pages.copy, local), self._read_pages(pages, local.places, differences=False)]
            await _all([self._loop.create_task(part, name="pages") for part in parts])
        await self._read_pages(pages, None, differences=True)

    async def _read_pages(self, pages: _Pages, here: Numbers | None, *, differences: bool) -> None:
        """Read pages, without those that are here; or differences."""
        manifest = self._manifest
        write = pages.change if differences else pages.write
        page_map = manifest.differences if differences else manifest.page_map
        first_frames = [pack.page_frames if differences else 0 for pack in manifest.packs]
        wanted = await self._in_thread(_wanted_frames, page_map, first_frames, here)
        in_hand: deque[tuple[asyncio.Task[None], int]] = deque()
        try:
            for number, run in enumerate(_reads(wanted, manifest.packs)):
                size_bytes = sum(manifest.packs[one.pack].frame_bytes[one.frame] for one in run)
                while in_hand and (len(in_hand) == _READS_IN_HAND or _sum_bytes(in_hand) + size_bytes > _BYTES_IN_HAND):
                    await in_hand.popleft()[0]
                in_hand.append((self._loop.create_task(self._read(run, write), name=f"read {number}"), size_bytes))
            while in_hand:
                await in_hand.popleft()[0]
        finally:
            await _end([task for task, _ in in_hand])

    async def _read(self, run: list[_Wanted], write: Callable[[Pack, _Wanted, bytes], None]) -> None:
        pack = self._manifest.packs[run[0].pack]
        sealed = await self._reader.sealed(pack, run[0].frame, run[-1].frame)
        self._last_read = self._loop.time()
        for wanted, data in zip(run, sealed, strict=True):
            try:
                await self._in_thread(write, pack, wanted, data)
            except BadFrame as error:
                raise DamagedObject(f"The object {pack.key} is damaged: {error}.") from error


def _close(files: ExitStack, in_threads: set[Future[Any]]) -> None:
    for future in in_threads:
        future.cancel()
    wait(in_threads)
    files.close()


def _sum_bytes(in_hand: deque[tuple[asyncio.Task[None], int]]) -> int:
    return sum(size_bytes for _, size_bytes in in_hand)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for all; after a failure, or a cancellation, until the others have ended."""
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A frame, which of its pages an image has, and where."""

    pack: int
    frame: int
    pages: Numbers
    """In the frame."""
    places: Numbers
    """In the image, counted over all its files that are kept in pages; increasing."""


def _wanted_frames(page_map: PageMap, first_frames: list[int], here: Numbers | None) -> list[_Wanted]:
    references = page_map.references()
    if here is not None:
        references[here] = 0
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def copy(self, local: LocalPages) -> None:
        """Copy pages from the local image. Raises `OSError` if that became shorter."""
        for copy in local.copies():
            offset, place, pages = copy.offset, copy.place, copy.pages
            while pages:
                file = int(np.searchsorted(self._starts, place, side="right")) - 1
                here = min(pages, int(self._starts[file + 1]) - place)
                start = (place - int(self._starts[file])) * PAGE_BYTES
                length = min(here * PAGE_BYTES, self._sizes[file] - start)
                _copy(copy.descriptor, offset, self._descriptors[file], start, length)
                offset, place, pages = offset + here * PAGE_BYTES, place + here, pages - here

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


def _copy(source: int, offset: int, descriptor: int, start: int, length: int) -> None:
    while length:
        copied = os.copy_file_range(source, descriptor, length, offset, start)
        if not copied:
            raise OSError("a local image became shorter while it was read")
        offset, start, length = offset + copied, start + copied, length - copied
