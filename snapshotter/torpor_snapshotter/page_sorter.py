"""Telling the new pages of an image, and those that changed in a few bytes, from those that are stored already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from torpor_snapshotter.earlier import EarlierFile, Flags, Words, words_of
from torpor_snapshotter.known_pages import Digests, KnownPages, digest_pages
from torpor_snapshotter.page_map import Numbers, References, packs_of, reference

MOST_CHANGED_BYTES: Final = 512
"""A page that differs in more from every page that it may have come from is stored as it is."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What must be stored of a piece of an image, one page after the other."""

    pages: bytes
    differences: bytes


class PageSorter:
    """Takes an image piece by piece; gives the pages that must be stored, and in the end all references."""

    def __init__(self, known: KnownPages, kept: list[bool], digest_key: bytes) -> None:
        """`kept` says of each pack of the parent whether it may be referred to; new pages go to one behind those."""
        self._known = known
        self._kept = np.array([*kept, False], np.bool_)  # -1, which is no pack, finds the last
        self._digest_key = digest_key
        self._references: list[References] = []
        self._differences: list[References] = []
        self._digests: list[Digests] = []
        self._next = reference(len(kept), 0)
        self.new_pages = 0
        self.new_differences = 0

    def take(self, chunk: bytes, first: int, earlier: EarlierFile, *, may_differ: bool = True) -> Taken:
        """What is new in a chunk of a file, from page `first` on; the last page of a file is filled with zeros.

        `earlier` is the parent's file of that name. Without `may_differ` new pages are to be stored as they are.
        """
        words = words_of(chunk)
        references = np.zeros(len(words), np.uint64)
        differences = np.zeros(len(words), np.uint64)
        unknown = words.any(axis=1)
        same = np.zeros(len(words), np.bool_)
        theirs = earlier.pages(first, len(words))
        there = slice(first, first + len(theirs))
        kept = self._kept[packs_of(earlier.references[there])]
        kept &= (earlier.differences[there] == 0) | self._kept[packs_of(earlier.differences[there])]
        same[: len(theirs)] = (words[: len(theirs)] == theirs).all(axis=1) & kept
        same &= unknown
        references[same] = earlier.references[first + np.flatnonzero(same)]
        differences[same] = earlier.differences[first + np.flatnonzero(same)]
        rest = np.flatnonzero(unknown & ~same)
        bytes_of_pages = words.view(np.uint8)
        digests = digest_pages((bytes_of_pages[page] for page in rest), self._digest_key)
        references[rest] = self._known.find(digests)
        changed = []
        for guesses in self._guesses(references, same, first, earlier) if may_differ else []:
            places = np.flatnonzero(unknown & (references == 0) & (guesses >= 0))
            places, bases, xored = self._changed(words, places, guesses[places], earlier)
            references[places] = bases
            start = self._next + np.uint64(self.new_differences)
            differences[places] = start + np.arange(len(places), dtype=np.uint64)
            self.new_differences += len(places)
            changed.append(xored.tobytes())
        is_new = references[rest] == 0
        new = rest[is_new]
        references[new], firsts = self._number(digests[is_new])
        self._references.append(references)
        self._differences.append(differences)
        return Taken(words[new[firsts]].tobytes(), b"".join(changed))

    def references(self) -> References:
        """Of all pages that were taken, in order."""
        return np.concatenate([np.empty(0, np.uint64), *self._references])

    def differences(self) -> References:
        """Of the differences of all pages that were taken, in order."""
        return np.concatenate([np.empty(0, np.uint64), *self._differences])

    def digests(self) -> bytes:
        """Of the new pages, in order."""
        return b"".join(each.tobytes() for each in self._digests)

    def _guesses(self, references: References, same: Flags, first: int, earlier: EarlierFile) -> list[Numbers]:
        """Where in the parent's file pages may have come from: their own place, or as far off as a neighbour moved."""
        own = first + np.arange(len(references), dtype=np.int64)
        found = np.flatnonzero(references)
        origins = np.where(same[found], own[found], earlier.places(references[found]))
        found, origins = found[origins >= 0], origins[origins >= 0]
        if not len(found):
            return [own]
        moved = origins - own[found]
        behind = np.searchsorted(found, np.arange(len(references)))
        neighbours = (np.maximum(behind - 1, 0), np.minimum(behind, len(found) - 1))
        return [own, *(np.where(moved[each] != 0, own + moved[each], -1) for each in neighbours)]

    def _changed(
        self, words: Words, places: Numbers, guesses: Numbers, earlier: EarlierFile
    ) -> tuple[Numbers, References, Words]:
        """Which of the pages differ in a few bytes only from a stored page, from which, and the differences.

        The stored page is looked up by what it is, so that nothing rests on the parent's local image being whole.
        """
        bases, known = earlier.bases(guesses)
        changed = words[places] ^ bases
        few = known & (np.count_nonzero(changed.view(np.uint8), axis=1) <= MOST_CHANGED_BYTES)
        found = self._known.find(digest_pages(bases[few].view(np.uint8), self._digest_key))
        return places[few][found != 0], found[found != 0], changed[few][found != 0]

    def _number(self, digests: Digests) -> tuple[References, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """References for new pages, equal for equal ones; and which of them are to be stored."""
        distinct, firsts, places = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(firsts)  # pages that follow one another in the image do so in the pack: short page maps
        rank = np.empty(len(order), np.uint64)
        rank[order] = np.arange(len(order), dtype=np.uint64)
        self._digests.append(distinct[order])
        start = self._next + np.uint64(self.new_pages)
        self.new_pages += len(distinct)
        return start + rank[places.reshape(-1)], firsts[order].astype(np.int64)
