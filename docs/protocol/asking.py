"""The fifth part of the protocol: code asks for packages, and is handed what the index has then, once and for all.

README.md says which function of the code has each condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from docs.protocol.checker import Step

NONE: Final = -1
REFUSED: Final = 0
"""What is installed if the ask is refused. Other numbers are versions."""
VERSIONS: Final = 2


class Condition(Enum):
    """What the code heeds. The model can leave out one, to show that it is needed."""

    HANDED_IN_BY_LOG = "what was asked for is handed in by a change of files, which is in the log"
    KNOWN_FIRST = "what the log has handed in for an ask is not fetched for it once more"
    ONLY_WHAT_IT_HAD = "what has its result and runs again is given only what the log has"
    SAID_TO_EACH_HOST = "an ask that was not answered is said again to each host that greets the guest"
    WAITING_IS_ENOUGH = "who waits for an ask that is under way is answered by it, and does not begin another"


class Process(NamedTuple):
    """A process that runs what installs: it waits for a file, and ends with what that has."""

    runs: bool = False
    said: bool = False
    """Its host was told what it asks for."""
    file: int = NONE
    refused: bool = False
    installed: int = NONE
    received: int = 0
    """So many of the changes were made in it."""


class State(NamedTuple):
    """The log, the index, a host and a process."""

    started: bool = False
    answer: int = NONE
    log: tuple[int, ...] = ()
    """Versions that were handed in, by changes of the same name."""
    published: int = 1
    alive: bool = True
    fetching: tuple[int, ...] = ()
    """Versions that the host has chosen and not handed in yet."""
    process: Process | None = None
    head: Process | None = None
    harms: int = 0
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    harms: int
    """Deaths of the server, of a process, or of both."""


class Asking:
    """One instruction that installs something, once; `without` one of the conditions."""

    def __init__(self, size: Size, without: Condition | None = None) -> None:
        self._size = size
        self._without = without

    # What the checker asks.

    def initial(self) -> list[State]:
        """A machine that is awake."""
        return [State(process=Process(), harms=self._size.harms)]

    def steps(self, state: State) -> Iterator[Step[State]]:
        """All that can happen next."""
        if state.broken:
            return
        if state.published < VERSIONS:
            yield Step("a newer version is published", state._replace(published=state.published + 1), True)
        if state.harms:
            yield from self._deaths(state._replace(harms=state.harms - 1))
        if not state.alive:
            yield Step("a server starts", state._replace(alive=True))
        elif state.process is None:
            yield Step("the machine is brought back", state._replace(process=state.head or Process()))
        else:
            yield from self._process_steps(state, state.process)
            yield from self._host_steps(state, state.process)

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks."""
        return state.broken

    def settled(self, state: State) -> bool:
        """It is answered, and whatever is executed again has ended again."""
        return state.answer != NONE and state.process is not None and state.process.installed == state.answer

    # What can happen.

    def _deaths(self, state: State) -> Iterator[Step[State]]:
        process = state.process
        if state.alive:
            adopted = None if process is None else process._replace(said=False)
            if self._without is Condition.SAID_TO_EACH_HOST:
                adopted = process
            yield Step("the server dies", state._replace(alive=False, fetching=(), process=adopted), True)
            if process is not None:
                both = state._replace(alive=False, fetching=(), process=None)
                yield Step("the server and the process die", both, True)
                yield Step("the process dies", state._replace(process=None), True)

    def _process_steps(self, state: State, process: Process) -> Iterator[Step[State]]:
        if not process.runs and process.installed == NONE:
            yield Step("it begins", _with(state._replace(started=True), process._replace(runs=True)))
            return
        if process.received < len(state.log):  # in its place beside what runs, of which a replay waits for no end
            made = process._replace(received=process.received + 1, file=state.log[process.received])
            yield Step("the change is made", _with(state, made))
        if process.runs and (process.file != NONE or process.refused):
            version = process.file if process.file != NONE else REFUSED
            yield Step(f"it installs {version}", _with(state, process._replace(runs=False, installed=version)))
        if process.installed != NONE:
            if state.answer == NONE:
                yield Step("it is answered", state._replace(answer=process.installed))
            elif state.answer != process.installed:
                broken = f"executed again it has {process.installed} instead of {state.answer}"
                yield Step("it has ended again", state._replace(broken=broken))
        if process != state.head and state.harms:
            # In an image it says its ask again, whoever reads it.
            yield Step("it is saved", state._replace(head=process._replace(said=False)))

    def _host_steps(self, state: State, process: Process) -> Iterator[Step[State]]:
        waits = process.runs and process.file == NONE and not process.refused
        if waits and not process.said:
            yield from self._asked(state, process._replace(said=True))
        for number, version in enumerate(state.fetching):
            after = state._replace(fetching=(*state.fetching[:number], *state.fetching[number + 1 :]))
            if self._without is Condition.HANDED_IN_BY_LOG:
                yield Step(f"{version} is handed in", _with(after, process._replace(file=version)))
            else:
                yield Step(f"{version} is in the log", after._replace(log=(*state.log, version)))

    def _asked(self, state: State, process: Process) -> Iterator[Step[State]]:
        asked = _with(state, process)
        knows = bool(state.log)
        if state.answer != NONE and self._without is not Condition.ONLY_WHAT_IT_HAD:
            if knows:
                yield Step("it asks again, for what the log has", asked)
            else:
                yield Step("it asks again, and is refused again", _with(state, process._replace(refused=True)))
            return
        if knows and self._without is not Condition.KNOWN_FIRST:
            yield Step("it asks for what the log has", asked)
            return
        if state.fetching and self._without is not Condition.WAITING_IS_ENOUGH:
            yield Step("it asks for what is on its way", asked)
            return
        yield Step("it asks, and is refused", _with(state, process._replace(refused=True)))
        yield Step("it asks", asked._replace(fetching=(*state.fetching, state.published)))


def _with(state: State, process: Process) -> State:
    return state._replace(process=process)
