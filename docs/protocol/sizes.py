"""How large the models are that are checked, and in which of them the lack of each condition shows."""

from __future__ import annotations

from typing import Any, Final

from docs.protocol import asking, beside, contents, keeping, running, running_state
from docs.protocol.asking import Asking
from docs.protocol.beside import Beside, Kind, Work
from docs.protocol.checker import Model, Report, check
from docs.protocol.contents import Kept
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

_INSTRUCTION: Final = Work(Kind.INSTRUCTION)
_COMMAND: Final = Work(Kind.COMMAND)
_BACKGROUND: Final = Work(Kind.BACKGROUND)
_INPUT: Final = Work(Kind.INPUT, target=0)
_WAITS_FOR_NEXT: Final = Work(Kind.INSTRUCTION, waits_for=1), _COMMAND
_IS_ENDED_BY_NEXT: Final = Work(Kind.COMMAND, waits_for=1), _INSTRUCTION
_READS: Final = _BACKGROUND, _INPUT
_READS_TWICE: Final = _INSTRUCTION, _INPUT, _INPUT
_TWO: Final = _COMMAND, _INSTRUCTION
_SECOND_READS: Final = _INSTRUCTION, _INSTRUCTION, Work(Kind.INPUT, target=1)

BESIDE: Final = (
    beside.Size(_WAITS_FOR_NEXT, harms=1),
    beside.Size(_IS_ENDED_BY_NEXT, harms=1),
    beside.Size(_TWO, harms=1),
    beside.Size(_READS, harms=2),
    beside.Size(_READS_TWICE, harms=1),
    beside.Size(_SECOND_READS, harms=1),
    beside.Size((_BACKGROUND, _COMMAND, _INPUT), harms=1),
    beside.Size(_SECOND_READS, harms=1, forgoes=True),
    beside.Size(_READS, harms=2, forgoes=True),
)
LARGE_BESIDE: Final = (
    beside.Size(_WAITS_FOR_NEXT, harms=2),
    beside.Size(_TWO, harms=2),
    beside.Size((_BACKGROUND, _INSTRUCTION, _INPUT), harms=2),
    beside.Size((_INSTRUCTION, _COMMAND, Work(Kind.INPUT, target=1)), harms=2, forgoes=True),
)
CONTENTS: Final = (contents.Size(changes=2, harms=1, forks=True), contents.Size(changes=3, harms=1))
LARGE_CONTENTS: Final = (contents.Size(changes=2, harms=2, forks=True), contents.Size(changes=3, harms=2))
ASKING: Final = (asking.Size(harms=3),)

_SMALL: Final = running.Size(entries=1, harms=1)
_THREADS: Final = running.Size(entries=1, harms=1, threads=True)
_POISON: Final = running.Size(entries=1, harms=2, poison=0)
_TWO_ENTRIES: Final = running.Size(entries=2, harms=1)

IN_RUNNING: Final = dict.fromkeys(running_state.Condition, _SMALL) | {
    running_state.Condition.EPOCH: running.Size(entries=2, harms=2),
    running_state.Condition.TAKE_OVER: _POISON,
    running_state.Condition.LIVE_SESSION: _POISON,
    running_state.Condition.ONE_AT_A_TIME: _TWO_ENTRIES,
    running_state.Condition.ATTEMPT_COUNTED_FIRST: _POISON,
    running_state.Condition.ROLLED_BACK_LEFT_OUT: _TWO_ENTRIES,
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
IN_BESIDE: Final = dict.fromkeys(beside.Condition, beside.Size(_READS, harms=2)) | {
    beside.Condition.ENDS_FIRST: beside.Size(_TWO, harms=1),
    beside.Condition.NOTHING_ELSE_FIRST: beside.Size(_IS_ENDED_BY_NEXT, harms=1),
    beside.Condition.WITH_ITS_CODE: beside.Size(_READS_TWICE, harms=1),
    beside.Condition.UNSENT_WAITS: beside.Size(_SECOND_READS, harms=1, forgoes=True),
}
IN_CONTENTS: Final = dict.fromkeys(contents.Condition, contents.Size(changes=2, harms=1, forks=True)) | {
    contents.Condition.GONE_IS_REFUSED: contents.Size(changes=3, harms=1),
}

Condition = running_state.Condition | keeping.Condition | beside.Condition | contents.Condition | asking.Condition
CONDITIONS: Final[tuple[Condition, ...]] = (
    *running_state.Condition,
    *keeping.Condition,
    *beside.Condition,
    *contents.Condition,
    *asking.Condition,
)
MODELS: Final[tuple[tuple[object, Model[Any]], ...]] = (
    *((size, Running(size)) for size in RUNNING),
    *((size, Keeping(size)) for size in KEEPING),
    *((size, Beside(size)) for size in BESIDE),
    *((size, Kept(size)) for size in CONTENTS),
    *((size, Asking(size)) for size in ASKING),
)
LARGE_MODELS: Final[tuple[tuple[object, Model[Any]], ...]] = (
    *((size, Running(size)) for size in LARGE_RUNNING),
    *((size, Keeping(size)) for size in LARGE_KEEPING),
    *((size, Beside(size)) for size in LARGE_BESIDE),
    *((size, Kept(size)) for size in LARGE_CONTENTS),
)
"""Too large for the tests."""


def check_without(condition: Condition) -> Report:
    """Check the model that lacks this condition: something must break."""
    match condition:
        case keeping.Condition():
            return check(Keeping(IN_KEEPING[condition], without=condition))
        case beside.Condition():
            return check(Beside(IN_BESIDE[condition], without=condition))
        case contents.Condition():
            return check(Kept(IN_CONTENTS[condition], without=condition))
        case asking.Condition():
            return check(Asking(ASKING[0], without=condition))
        case _:
            return check(Running(IN_RUNNING[condition], without=condition))
