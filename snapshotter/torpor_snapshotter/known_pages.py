"""Finding pages that are stored already, by their digests. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from blake3 import blake3

from torpor_snapshotter.page_map import References, reference

DIGEST_BYTES: Final = 16
"""128 bits of BLAKE3: two different pages of all that a machine ever had will not share one."""

Digests: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint64]]
"""One row of two words for each page."""


def digest_pages(pages: Iterable[Any], key: bytes) -> Digests:
    """Keyed digests of pages: who does not have the key cannot tell from one what the page may hold."""
    digests = b"".join(blake3(page, key=key).digest(length=DIGEST_BYTES) for page in pages)
    return digests_from_bytes(digests)


def digests_from_bytes(data: bytes) -> Digests:
    """Digests as a pack's index holds them."""
    return np.frombuffer(data, "<u8").reshape(-1, 2)


class KnownPages:
    """The pages of some packs."""

    def __init__(self, packs: dict[int, Digests]) -> None:
        """Digests of each pack's pages, by the pack's place in the list."""
        digests = np.concatenate([np.empty((0, 2), np.uint64), *packs.values()])
        references = [
            np.arange(len(each), dtype=np.uint64) + reference(place, 0) for place, each in packs.items() if len(each)
        ]
        order = np.argsort(digests[:, 0], kind="stable")
        self._digests = digests[order]
        self._references = np.concatenate([np.empty(0, np.uint64), *references])[order]

    def find(self, digests: Digests) -> References:
        """For each digest a reference to a page that has it, 0 if there is none."""
        if not len(self._digests):
            return np.zeros(len(digests), np.uint64)
        # Of two pages with equal first halves only one is found: the other is stored again, which does no harm.
        places = np.searchsorted(self._digests[:, 0], digests[:, 0])
        places = np.minimum(places, len(self._digests) - 1)
        equal = (self._digests[places] == digests).all(axis=1)
        return np.where(equal, self._references[places], np.uint64(0))
