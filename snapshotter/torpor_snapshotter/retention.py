"""Which generations of a machine nothing needs any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

QUIESCENT_KEPT = 2


@dataclass(frozen=True, slots=True)
class Generation:
    """What retention needs to know of a committed snapshot."""

    number: int
    parent: int | None
    quiescent: bool


def superseded(generations: Iterable[Generation], head: int) -> set[int]:
    """Generations older than the second-newest quiescent one on the head's line of descent.

    What a rollback set aside does not count as one of the two, but is kept as long as any generation of its age.
    """
    known = {generation.number: generation for generation in generations}
    quiescent_seen = 0
    current = known.get(head)
    while current is not None:
        quiescent_seen += current.quiescent
        if quiescent_seen == QUIESCENT_KEPT:
            oldest_kept = current.number
            return {number for number in known if number < oldest_kept}
        current = None if current.parent is None else known.get(current.parent)
    return set()
