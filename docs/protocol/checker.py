"""A small explicit-state model checker: every state that a model can come to is looked at, shortest ways first."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


class Step(NamedTuple, Generic[State]):
    """One thing that can happen next, in one go."""

    name: str
    state: State
    harm: bool = False
    """The world does it to us (a death, a lost message): nothing may depend on its coming."""


class Model(Protocol[State]):
    """What can be checked."""

    def initial(self) -> list[State]:
        """Where it can begin."""
        ...

    def steps(self, state: State) -> Iterator[Step[State]]:
        """All that can happen next."""
        ...

    def broken(self, state: State) -> str | None:
        """The promise that this state breaks, as a sentence; None if it breaks none."""
        ...

    def settled(self, state: State) -> bool:
        """Whether everything is done that was to be done: some way has to lead to such a state from every other."""
        ...


@dataclass(frozen=True)
class Report:
    """What a check found."""

    states: int
    steps: int
    problem: str | None
    """What is broken, None if nothing is."""
    trace: list[str]
    """The names of the steps that lead there, as few as possible."""


def check(model: Model[State]) -> Report:
    """Look at all states of the model, until one breaks a promise or nothing leads on from it to a settled one."""
    collects = gc.isenabled()
    gc.disable()  # states have no cycles, and looking for some in millions of tuples takes most of the time
    try:
        return _check(model)
    finally:
        if collects:
            gc.enable()


def _check(model: Model[State]) -> Report:
    begins = model.initial()
    number = {state: index for index, state in enumerate(begins)}
    states = list(begins)
    came_from: list[tuple[int, str]] = [(-1, "")] * len(begins)
    comes_from: list[list[int]] = [[] for _ in begins]
    """Of each state, those that lead to it without harm."""
    steps = 0

    def trace(index: int) -> list[str]:
        names: list[str] = []
        while index >= 0:
            index, name = came_from[index]
            names.append(name)
        return names[-2::-1]

    index = 0
    while index < len(states):
        state = states[index]
        if (problem := model.broken(state)) is not None:
            return Report(len(states), steps, problem, trace(index))
        for name, after, harm in model.steps(state):
            steps += 1
            to = number.setdefault(after, len(states))
            if to == len(states):
                states.append(after)
                came_from.append((index, name))
                comes_from.append([])
            if not harm:
                comes_from[to].append(index)
        index += 1
    lost = _first_that_never_settles(comes_from, [model.settled(state) for state in states])
    if lost is not None:
        return Report(len(states), steps, "from here on nothing leads to where everything is done", trace(lost))
    return Report(len(states), steps, None, [])


def _first_that_never_settles(comes_from: list[list[int]], settled: list[bool]) -> int | None:
    fine = list(settled)
    queue = deque(index for index, is_settled in enumerate(settled) if is_settled)
    while queue:
        for before in comes_from[queue.popleft()]:
            if not fine[before]:
                fine[before] = True
                queue.append(before)
    return next((index for index, is_fine in enumerate(fine) if not is_fine), None)
