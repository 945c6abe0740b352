"""Which generations of a machine nothing needs any more. Pure.

Order is by generation number; times only sort generations into spans, so that a clock that jumps can thin them out too
early or too late, but never touches one that is always kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

QUIESCENT_KEPT: Final = 2
LINES_KEPT: Final = 8
"""How many lines, the newest ones, keep their last generation: what a rollback can be undone to."""

_HOUR: Final = 3600 * 1_000_000
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY
_FIRST_MONDAY: Final = 4 * _DAY
"""1970-01-05: weeks begin on Mondays, as days do at midnight, in UTC."""


@dataclass(frozen=True, slots=True)
class _Thinning:
    """Of each span of time keep one generation, once the span has been over for so long. Microseconds."""

    span: int
    after: int

    def span_of(self, created_at: int) -> int:
        return (created_at - _FIRST_MONDAY) // self.span

    def applies(self, span: int, now: int) -> bool:
        return (span + 1) * self.span + _FIRST_MONDAY + self.after <= now


# Each span lies within one of the next, and one that is thinned stays so: hence whatever is given up at one time would
# have been at any later one, and it makes no difference how often this is applied.
_POLICY: Final = (_Thinning(_HOUR, _HOUR), _Thinning(_DAY, _DAY), _Thinning(_WEEK, 30 * _DAY))


@dataclass(frozen=True, slots=True)
class Generation:
    """What retention needs to know of a committed snapshot."""

    number: int
    quiescent: bool
    created_at: int
    """In microseconds, by the ledger's clock."""
    behind_head: bool = True
    """It is the head, or what the head came from; False for what a rollback or a recovery set aside."""
    line: int = 0
    kept: bool = False
    """It was pinned, or no log lies before it."""


def superseded(generations: Iterable[Generation], now: int) -> set[int]:
    """What is over, at the time `now`: all are kept for an hour, then hourly, daily after a day, weekly after a month.

    An hour, a day or a week is thinned out as a whole. It keeps its last quiescent generation (its last one, if none
    is), of those behind the head and of those set aside. One that is not quiescent is of use only until there is a
    newer one of its line: nothing but the end of a line goes on from the middle of an instruction.

    Always kept are the second-newest quiescent generation behind the head and all newer quiescent ones, so all of them,
    if there are not two; the newest of each of the newest lines; and those that are to be kept whatever happens.
    """
    known = list(generations)
    passing = {one.number for one in known if not one.quiescent and not one.kept} - _ends_of_lines(known, len(known))
    known = [one for one in known if one.number not in passing]
    quiescent = sorted((one.number for one in known if one.behind_head and one.quiescent), reverse=True)
    if len(quiescent) < QUIESCENT_KEPT:
        return passing
    garbage = {one.number for one in known if one.number < quiescent[QUIESCENT_KEPT - 1] and not one.kept}
    return passing | ((garbage & _thinned_out(known, now)) - _ends_of_lines(known, LINES_KEPT))


def thinned_before(now: int) -> int:
    """Since when no generation is over for being one of many, at the time `now`; times are in microseconds."""
    return (now - _HOUR) // _HOUR * _HOUR


def _thinned_out(generations: list[Generation], now: int) -> set[int]:
    gone: set[int] = set()
    for thinning in _POLICY:
        best: dict[tuple[int, bool], Generation] = {}
        for one in generations:
            span = thinning.span_of(one.created_at)
            if not thinning.applies(span, now):
                continue
            other = best.setdefault((span, one.behind_head), one)
            if other is not one:
                worse, better = sorted((one, other), key=lambda each: (each.quiescent, each.number))
                best[span, one.behind_head] = better
                gone.add(worse.number)
    return gone


def _ends_of_lines(generations: list[Generation], lines: int) -> set[int]:
    """The newest generation of each of so many lines, the newest ones."""
    newest: dict[int, int] = {}
    for one in generations:
        newest[one.line] = max(one.number, newest.get(one.line, -1))
    return {newest[line] for line in sorted(newest, reverse=True)[:lines]}
