"""Which packs a save leaves behind, so that they can go. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_PACKS: Final = 16
PACKS_AFTERWARDS: Final = 8
MOST_BYTES_AT_ONCE: Final = 32 << 20
"""What one save stores again at most to have fewer packs, unless it must, to have no more than `MOST_PACKS`."""


@dataclass(frozen=True, slots=True)
class PackUse:
    """How much of a pack a snapshot needs, in bytes as stored."""

    size_bytes: int
    live_bytes: int


def packs_to_rewrite(packs: Sequence[PackUse]) -> set[int]:
    """Places of the packs of which the next save stores what is live once more, instead of referring to them.

    Those of which less than half is live: whoever changed the other half did more work than copying the rest is. And,
    when there are more than `MOST_PACKS`, the smallest. A snapshot then refers to `MOST_PACKS` and its own at most.
    """
    chosen = {place for place, pack in enumerate(packs) if 2 * pack.live_bytes < pack.size_bytes}
    kept = sorted((pack.live_bytes, place) for place, pack in enumerate(packs) if place not in chosen)
    if len(kept) <= MOST_PACKS:
        return chosen
    rewritten_bytes = 0
    for left, (live_bytes, place) in zip(range(len(kept), PACKS_AFTERWARDS, -1), kept, strict=False):
        rewritten_bytes += live_bytes
        if left <= MOST_PACKS and rewritten_bytes > MOST_BYTES_AT_ONCE:
            break
        chosen.add(place)
    return chosen
