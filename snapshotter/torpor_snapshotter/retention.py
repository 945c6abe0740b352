"""Which generations of a machine nothing needs any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

QUIESCENT_KEPT = 2
LINES_KEPT = 8
"""How many lines, the newest ones, keep their last generation: what a rollback can be undone to."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What retention needs to know of a committed snapshot."""

    number: int
    parent: int | None
    quiescent: bool
    line: int = 0
    kept: bool = False
    """It was pinned, or no log lies before it."""


def superseded(generations: Iterable[Generation], head: int) -> set[int]:
    """Generations older than the second-newest quiescent one on the head's line of descent.

    What a rollback set aside does not count as one of the two, but is kept as long as any generation of its age. The
    newest generation of each of the newest lines stays, and those that are to be kept whatever happens.
    """
    known = {generation.number: generation for generation in generations}
    quiescent_seen = 0
    current = known.get(head)
    while current is not None:
        quiescent_seen += current.quiescent
        if quiescent_seen == QUIESCENT_KEPT:
            return {number for number in known if number < current.number} - _kept(known)
        current = None if current.parent is None else known.get(current.parent)
    return set()


def _kept(known: dict[int, Generation]) -> set[int]:
    newest: dict[int, int] = {}
    for number, generation in known.items():
        newest[generation.line] = max(number, newest.get(generation.line, -1))
    lines = sorted(newest, reverse=True)[:LINES_KEPT]
    return {newest[line] for line in lines} | {number for number, generation in known.items() if generation.kept}
