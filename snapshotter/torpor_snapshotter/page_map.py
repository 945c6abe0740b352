"""Where each page of an image is stored. Pure.

A *reference* is one unsigned 64-bit number: 0 for a page of zeros, else `(pack + 1) << 32 | page`, with `pack` counted
in the manifest's list of packs and `page` in the pack's pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np

PAGE_BYTES: Final = 4096
_PACK_SHIFT: Final = np.uint64(32)
_NUMBER_MASK: Final = np.uint64(0xFFFFFFFF)

References: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
Numbers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
_Column: TypeAlias = np.ndarray[tuple[int], np.dtype[Any]]


class BadPageMap(ValueError):
    """The columns are no page map."""


def page_count(size_bytes: int) -> int:
    """How many pages so many bytes take."""
    return -(-size_bytes // PAGE_BYTES)


def packs_of(references: References) -> Numbers:
    """For each reference the place of its pack in the list, -1 for a page of zeros."""
    return (references >> _PACK_SHIFT).astype(np.int64) - 1


def pages_of(references: References) -> Numbers:
    """For each reference the number of its page in the pack."""
    return (references & _NUMBER_MASK).astype(np.int64)


def reference(pack: int, page: int) -> np.uint64:
    """The reference of a page; pages that follow it in the pack have those that follow."""
    return np.uint64(pack + 1 << 32 | page)


@dataclass(frozen=True, slots=True, eq=False)
class PageMap:
    """References in runs: zeros, or pages that follow one another in one pack; a column each, for few bytes."""

    counts: _Column
    """Pages in each run; u32."""
    packs: _Column
    """0 for a run of zeros, else the place of the pack in the list, counted from 1; u16."""
    firsts: _Column
    """The first page of each run in its pack; u32."""

    @classmethod
    def of(cls, references: References) -> Self:
        """The map of an image's references, in the order of its pages."""
        if not len(references):
            starts = np.empty(0, np.int64)
        else:
            expected = references[:-1] + (references[:-1] != 0)
            starts = np.concatenate(([0], np.flatnonzero(references[1:] != expected) + 1))
        counts = np.diff(starts, append=len(references))
        first = references[starts]
        return cls(counts.astype("<u4"), (packs_of(first) + 1).astype("<u2"), pages_of(first).astype("<u4"))

    def references(self) -> References:
        """One for each page."""
        counts = self.counts.astype(np.int64)
        starts = np.cumsum(counts) - counts
        first = self.packs.astype(np.uint64) << _PACK_SHIFT | self.firsts.astype(np.uint64)
        steps = np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(starts, counts)
        stored = np.repeat(self.packs != 0, counts)
        whole: References = np.repeat(first, counts) + (steps * stored).astype(np.uint64)
        return whole

    def to_bytes(self) -> bytes:
        """The three columns, one after the other."""
        return self.counts.tobytes() + self.packs.tobytes() + self.firsts.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, pages: int, pack_pages: list[int]) -> Self:
        """The map of `pages` pages in packs that hold `pack_pages` each. Raises `BadPageMap`."""
        runs, rest = divmod(len(data), 10)
        if rest:
            raise BadPageMap("a page map is cut off")
        made = cls(
            np.frombuffer(data, "<u4", runs),
            np.frombuffer(data, "<u2", runs, 4 * runs),
            np.frombuffer(data, "<u4", runs, 6 * runs),
        )
        held = np.array([1 << 33, *pack_pages], np.int64)
        if int(made.counts.sum(dtype=np.int64)) != pages or (runs and int(made.packs.max()) >= len(held)):
            raise BadPageMap("a page map does not fit its files")
        if np.any(made.firsts.astype(np.int64) + made.counts > held[made.packs]):
            raise BadPageMap("a page map refers to pages that no pack has")
        return made
