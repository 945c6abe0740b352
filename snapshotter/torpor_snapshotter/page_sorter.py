"""Telling the new pages of an image, and those that changed in a few bytes, from those that are stored already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from torpor_snapshotter.known_pages import Digests, KnownPages, digest_pages
from torpor_snapshotter.pack import FRAME_PAGES
from torpor_snapshotter.page_map import PAGE_BYTES, Numbers, References, packs_of, pages_of, reference

MOST_CHANGED_BYTES: Final = 512
"""A page that differs in more from the one at its place before is stored as it is, and can be changed anew then."""

_WORDS: Final = PAGE_BYTES // 8
_Words: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint64]]
_Flags: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Earlier:
    """What lies at the same place of the parent's image: its bytes, if they are at hand, and where they are stored."""

    content: bytes
    references: References
    differences: References
    """To what those pages, as they are stored, are XORed with; as many."""
    frames: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Differences that are stored, by the place of the pack and the number of the frame among those of differences."""

    def bases(self, places: Numbers) -> tuple[_Words, _Flags]:
        """The pages as they are stored, without differences; and for which of them that can be told."""
        bases = _words(self.content)[places]
        known = np.ones(len(places), np.bool_)
        differences = self.differences[places]
        packs, numbers = packs_of(differences), pages_of(differences)
        for at in np.flatnonzero(differences):
            frame = self.frames.get((int(packs[at]), int(numbers[at]) // FRAME_PAGES))
            if frame is None:
                known[at] = False
            else:
                bases[at] ^= np.frombuffer(frame, np.uint64).reshape(-1, _WORDS)[numbers[at] % FRAME_PAGES]
        return bases, known


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

    def take(self, chunk: bytes, earlier: Earlier, *, may_differ: bool = True) -> Taken:
        """The new pages of a chunk of a file; the last page of a file is filled with zeros.

        Without `may_differ` all of them are to be stored as they are.
        """
        words = _words(chunk)
        references = np.zeros(len(words), np.uint64)
        differences = np.zeros(len(words), np.uint64)
        unknown = words.any(axis=1)
        same = np.zeros(len(words), np.bool_)
        theirs = _words(earlier.content)
        count = min(len(words), len(theirs), len(earlier.references))
        there = self._kept[packs_of(earlier.references[:count])]
        there &= (earlier.differences[:count] == 0) | self._kept[packs_of(earlier.differences[:count])]
        same[:count] = (words[:count] == theirs[:count]).all(axis=1) & there
        same &= unknown
        references[same] = earlier.references[np.flatnonzero(same)]
        differences[same] = earlier.differences[np.flatnonzero(same)]
        rest = np.flatnonzero(unknown & ~same)
        bytes_of_pages = words.view(np.uint8)
        digests = digest_pages((bytes_of_pages[page] for page in rest), self._digest_key)
        found = self._known.find(digests)
        references[rest] = found
        is_new = found == 0
        changed = np.empty((0, _WORDS), np.uint64)
        if may_differ:
            comparable = rest[is_new & (rest < count)]
            places, bases, changed = self._changed(words, earlier, comparable)
            references[places] = bases
            start = self._next + np.uint64(self.new_differences)
            differences[places] = start + np.arange(len(places), dtype=np.uint64)
            self.new_differences += len(places)
            is_new &= ~np.isin(rest, places)
        new = rest[is_new]
        references[new], firsts = self._number(digests[is_new])
        self._references.append(references)
        self._differences.append(differences)
        return Taken(words[new[firsts]].tobytes(), changed.tobytes())

    def references(self) -> References:
        """Of all pages that were taken, in order."""
        return np.concatenate([np.empty(0, np.uint64), *self._references])

    def differences(self) -> References:
        """Of the differences of all pages that were taken, in order."""
        return np.concatenate([np.empty(0, np.uint64), *self._differences])

    def digests(self) -> bytes:
        """Of the new pages, in order."""
        return b"".join(each.tobytes() for each in self._digests)

    def _changed(self, words: _Words, earlier: Earlier, places: Numbers) -> tuple[Numbers, References, _Words]:
        """Which of the pages changed in a few bytes only, from which stored pages, and the differences.

        The stored page is looked up by what it is, so that nothing rests on the parent's local image being whole.
        """
        bases, known = earlier.bases(places)
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


def _words(content: bytes) -> _Words:
    whole = len(content) // PAGE_BYTES * PAGE_BYTES
    if whole < len(content):
        content += bytes(PAGE_BYTES - len(content) + whole)
    return np.frombuffer(content, np.uint64).reshape(-1, _WORDS)
