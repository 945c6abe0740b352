"""Pages that need not come from the store: an image that shares them lies on the local disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torpor_snapshotter.manifest import Manifest
from torpor_snapshotter.page_map import PAGE_BYTES, Numbers, References, packs_of, page_count, pages_of


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image on the local disk, and the manifest that says which page of which pack lies where in it."""

    manifest: Manifest
    folder: Path


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of an open file that go to pages which follow one another."""

    descriptor: int
    offset: int
    place: int
    """The first page of the image that is put together, counted over all its files that are kept in pages."""
    pages: int


class LocalPages:
    """Where the local image has pages that another image needs. A context, in which its files are open."""

    def __init__(self, local: LocalImage) -> None:
        """Raises `OSError` if the local image is not there, or not whole."""
        self._manifest = local.manifest
        self._sizes = [file.size_bytes for file in local.manifest.paged]
        self._starts = np.cumsum([0, *map(page_count, self._sizes)])
        self.places = self._sources = np.empty(0, np.int64)
        self._files = ExitStack()
        with self._files:
            self._descriptors = [self._open(local.folder / file.name, file.size_bytes) for file in local.manifest.paged]
            self._files = self._files.pop_all()

    def match(self, wanted: Manifest) -> None:
        """Find out which pages the wanted image shares."""
        self.places, self._sources = _matches(self._manifest, wanted, self._starts, self._sizes)

    def __enter__(self) -> LocalPages:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    places: Numbers
    """Of the pages that are there, in the image that needs them; increasing."""

    def copies(self) -> Iterator[Copy]:
        """How to get them, in as few pieces as possible."""
        files = np.searchsorted(self._starts, self._sources, side="right") - 1
        breaks = (np.diff(self.places) != 1) | (np.diff(self._sources) != 1) | (np.diff(files) != 0)
        firsts = np.concatenate(([0], np.flatnonzero(breaks) + 1)) if len(self.places) else np.empty(0, np.int64)
        for first, last in zip(firsts.tolist(), [*firsts[1:].tolist(), len(self.places)], strict=False):
            file = int(files[first])
            offset = (int(self._sources[first]) - int(self._starts[file])) * PAGE_BYTES
            yield Copy(self._descriptors[file], offset, int(self.places[first]), last - first)

    def _open(self, path: Path, size_bytes: int) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files.callback(os.close, descriptor)
        if os.fstat(descriptor).st_size != size_bytes:
            raise OSError(f"{path} has another size than it should")
        return descriptor


def _matches(local: Manifest, wanted: Manifest, starts: Numbers, sizes: list[int]) -> tuple[Numbers, Numbers]:
    """Places of pages in the wanted image, and where the local one has the same page of the same pack."""
    there: References = local.page_map.references()
    usable = (there != 0) & (local.differences.references() == 0)
    for start, size_bytes in zip(starts.tolist(), sizes, strict=False):
        if size_bytes % PAGE_BYTES:  # the last page of a file that ends within it is not whole
            usable[start + size_bytes // PAGE_BYTES] = False
    sources = np.flatnonzero(usable)
    references = wanted.page_map.references()
    # The packs of the local image by their places in the list of the other; those that it has not, nowhere.
    named = {pack.key: place for place, pack in enumerate(wanted.packs)}
    translated = np.array([named.get(pack.key, -1) for pack in local.packs], np.int64)
    packs = translated[packs_of(there[sources])]
    sources, packs = sources[packs >= 0], packs[packs >= 0]
    same = (packs.astype(np.uint64) + np.uint64(1)) << np.uint64(32) | pages_of(there[sources]).astype(np.uint64)
    order = np.argsort(same, kind="stable")
    same, sources = same[order], sources[order]
    places = np.flatnonzero(references)
    if not len(same):
        return places[:0], sources
    found = np.minimum(np.searchsorted(same, references[places]), len(same) - 1)
    hits = same[found] == references[places]
    return places[hits], sources[found[hits]]
