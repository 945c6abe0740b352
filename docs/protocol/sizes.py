"""How large the models are that are checked, and in which of them the lack of each condition shows."""

from __future__ import annotations

from typing import Final

from docs.protocol import keeping, running, running_state
from docs.protocol.checker import Report, check
from docs.protocol.keeping import Keeping
from docs.protocol.running import Running

RUNNING: Final = (
    running.Size(entries=1, harms=1, threads=True),
    running.Size(entries=1, harms=2, poison=0),
    running.Size(entries=2, harms=2),
    running.Size(entries=1, harms=1, changes=2),
    running.Size(entries=1, harms=2, changes=1),
)
KEEPING: Final = (
    keeping.Size(saves=1, templates=True),
    keeping.Size(saves=1, harms=1, forks=True),
    keeping.Size(saves=2, harms=1),
    keeping.Size(saves=2, forks=True),
)
LARGE_RUNNING: Final = (running.Size(entries=1, harms=2, threads=True), running.Size(entries=3, harms=1))
LARGE_KEEPING: Final = (keeping.Size(saves=2, harms=1, forks=True),)
"""Too large for the tests."""

_SMALL: Final = running.Size(entries=1, harms=1)
_THREADS: Final = running.Size(entries=1, harms=1, threads=True)
_POISON: Final = running.Size(entries=1, harms=2, poison=0)
_TWO: Final = running.Size(entries=2, harms=1)

IN_RUNNING: Final = dict.fromkeys(running_state.Condition, _SMALL) | {
    running_state.Condition.EPOCH: running.Size(entries=2, harms=2),
    running_state.Condition.TAKE_OVER: _POISON,
    running_state.Condition.LIVE_SESSION: _POISON,
    running_state.Condition.ONE_AT_A_TIME: _TWO,
    running_state.Condition.ATTEMPT_COUNTED_FIRST: _POISON,
    running_state.Condition.ROLLED_BACK_LEFT_OUT: _TWO,
    running_state.Condition.HEAD_IS_EXPECTED: _THREADS,
    running_state.Condition.RELEASE_AT_HEAD: _THREADS,
    running_state.Condition.ADOPT_WHAT_FITS: running.Size(entries=2, harms=2),
    running_state.Condition.LOGGED_BEFORE_MADE: running.Size(entries=1, harms=1, changes=1),
    running_state.Condition.LOGGED_BEHIND_ALL: running.Size(entries=1, harms=1, changes=1),
    running_state.Condition.ADOPT_THE_LAST: running.Size(entries=1, harms=2, threads=True, poison=0),
    running_state.Condition.ADOPT_NOTHING_UNDONE: running.Size(entries=1, harms=2),
}
IN_KEEPING: Final = dict.fromkeys(keeping.Condition, keeping.Size(saves=1, templates=True)) | {
    keeping.Condition.COPY_REGISTERED_FIRST: keeping.Size(saves=1, forks=True),
    keeping.Condition.FORK_STILL_THERE: keeping.Size(saves=1, forks=True),
    keeping.Condition.FORK_REFERS: keeping.Size(saves=1, forks=True),
    keeping.Condition.COPIES_CONDEMNED: keeping.Size(saves=1, harms=1, forks=True),
}

Condition = running_state.Condition | keeping.Condition
CONDITIONS: Final[tuple[Condition, ...]] = (*running_state.Condition, *keeping.Condition)


def check_without(condition: Condition) -> Report:
    """Check the model that lacks this condition: something must break."""
    if isinstance(condition, keeping.Condition):
        return check(Keeping(IN_KEEPING[condition], without=condition))
    return check(Running(IN_RUNNING[condition], without=condition))
