"""Telling the new pages of an image from those that are stored already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from torpor_snapshotter.known_pages import Digests, KnownPages, digest_pages
from torpor_snapshotter.page_map import PAGE_BYTES, References, packs_of, reference

_WORDS: Final = PAGE_BYTES // 8
_Words: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Earlier:
    """What lies at the same place of the parent's image: its bytes, if they are at hand, and where they are stored."""

    content: bytes
    references: References


class PageSorter:
    """Takes an image piece by piece; gives the pages that must be stored, and in the end all references."""

    def __init__(self, known: KnownPages, kept: list[bool], digest_key: bytes) -> None:
        """`kept` says of each pack of the parent whether it may be referred to; new pages go to one behind those."""
        self._known = known
        self._kept = np.array([*kept, False], np.bool_)  # -1, which is no pack, finds the last
        self._digest_key = digest_key
        self._references: list[References] = []
        self._digests: list[Digests] = []
        self._next = reference(len(kept), 0)
        self.new_pages = 0

    def take(self, chunk: bytes, earlier: Earlier) -> bytes:
        """The new pages of a chunk of a file, one after the other; the last page of a file is filled with zeros."""
        words = _words(chunk)
        references = np.zeros(len(words), np.uint64)
        unknown = words.any(axis=1)
        same = np.zeros(len(words), np.bool_)
        theirs = _words(earlier.content)
        count = min(len(words), len(theirs), len(earlier.references))
        same[:count] = (words[:count] == theirs[:count]).all(axis=1) & self._kept[packs_of(earlier.references[:count])]
        same &= unknown
        references[same] = earlier.references[np.flatnonzero(same)]
        rest = np.flatnonzero(unknown & ~same)
        bytes_of_pages = words.view(np.uint8)
        digests = digest_pages((bytes_of_pages[page] for page in rest), self._digest_key)
        found = self._known.find(digests)
        references[rest] = found
        new = rest[found == 0]
        references[new], firsts = self._number(digests[found == 0])
        self._references.append(references)
        stored: bytes = words[new[firsts]].tobytes()
        return stored

    def references(self) -> References:
        """Of all pages that were taken, in order."""
        return np.concatenate([np.empty(0, np.uint64), *self._references])

    def digests(self) -> bytes:
        """Of the new pages, in order."""
        return b"".join(each.tobytes() for each in self._digests)

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
