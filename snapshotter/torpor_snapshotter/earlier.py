"""Files of the parent's image: what lies at a place there, and where and how that is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from torpor_snapshotter.image import BadImage, read_chunk
from torpor_snapshotter.pack import FRAME_PAGES, BadFrame, Pack, decompress_pages
from torpor_snapshotter.page_map import PAGE_BYTES, Numbers, References, packs_of, page_count, pages_of

WORDS: Final = PAGE_BYTES // 8
_OPEN_FRAMES: Final = 16

Words: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint64]]
"""Pages, a row each."""
Flags: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]
FrameKey: TypeAlias = tuple[int, int]
"""The place of a pack in the list, and the number of a frame among those of differences."""


def words_of(content: bytes) -> Words:
    """The pages of some bytes, the last one filled with zeros."""
    whole = len(content) // PAGE_BYTES * PAGE_BYTES
    if whole < len(content):
        content += bytes(PAGE_BYTES - len(content) + whole)
    return np.frombuffer(content, np.uint64).reshape(-1, WORDS)


def _no_references() -> References:
    return np.empty(0, np.uint64)


@dataclass(slots=True)
class StoredDifferences:
    """Frames of differences, as they are compressed; some of them are kept open."""

    packs: tuple[Pack, ...] = ()
    frames: dict[FrameKey, bytes] = field(default_factory=dict)
    _opened: dict[FrameKey, Words] = field(default_factory=dict)

    def page(self, pack: int, number: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]] | None:
        """A difference; None if it is not at hand."""
        key = (pack, number // FRAME_PAGES)
        if key not in self._opened:
            if key not in self.frames:
                return None
            if len(self._opened) == _OPEN_FRAMES:
                self._opened.clear()
            pages = min(FRAME_PAGES, self.packs[pack].differences - key[1] * FRAME_PAGES)
            try:
                self._opened[key] = words_of(decompress_pages(self.frames[key], pages))
            except BadFrame:
                return None
        row: np.ndarray[tuple[int], np.dtype[np.uint64]] = self._opened[key][number % FRAME_PAGES]
        return row


@dataclass(frozen=True)
class EarlierFile:
    """A file of the parent's image that is kept in pages. One that is given up meanwhile has no pages any more."""

    path: Path | None = None
    """None if it is not on the local disk."""
    size_bytes: int = 0
    references: References = field(default_factory=_no_references)
    differences: References = field(default_factory=_no_references)
    stored_differences: StoredDifferences = field(default_factory=StoredDifferences)

    def pages(self, first: int, count: int) -> Words:
        """So many pages, or fewer at the end of the file; none if they cannot be read."""
        start = first * PAGE_BYTES
        length = min(count * PAGE_BYTES, self.size_bytes - start)
        if self.path is None or length <= 0:
            return words_of(b"")
        try:
            return words_of(read_chunk(self.path, start, length))
        except (OSError, BadImage):  # it is given up at any time; then everything is digested
            return words_of(b"")

    def bases(self, places: Numbers) -> tuple[Words, Flags]:
        """The pages at some places, without their differences; and for which of them that can be told."""
        bases = np.zeros((len(places), WORDS), np.uint64)
        known = (places >= 0) & (places < page_count(self.size_bytes))
        wanted = np.flatnonzero(known)
        for run in np.split(wanted, np.flatnonzero(np.diff(places[wanted]) != 1) + 1):
            if len(run):
                pages = self.pages(int(places[run[0]]), len(run))
                bases[run[: len(pages)]] = pages
                known[run[len(pages) :]] = False
        differences = np.zeros(len(places), np.uint64)
        differences[known] = self.differences[places[known]]
        packs, numbers = packs_of(differences), pages_of(differences)
        for at in np.flatnonzero(differences):
            difference = self.stored_differences.page(int(packs[at]), int(numbers[at]))
            if difference is None:
                known[at] = False
            else:
                bases[at] ^= difference
        return bases, known

    def places(self, references: References) -> Numbers:
        """Where pages are that are stored there; -1 for those that are nowhere, or in several places."""
        ordered, order = self._by_reference
        if not len(ordered):
            return np.full(len(references), -1, np.int64)
        first = np.searchsorted(ordered, references, side="left")
        once = np.searchsorted(ordered, references, side="right") - first == 1
        return np.where(once, order[np.minimum(first, len(order) - 1)], -1)

    @cached_property
    def _by_reference(self) -> tuple[References, Numbers]:
        order = np.argsort(self.references, kind="stable")
        return self.references[order], order
