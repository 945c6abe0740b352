"""What a fork gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

M = TypeVar("M")


class Forked(list[M]):
    """The new machines of a fork, as a list, and the state that they begin with.

    >>> forks = machine.fork(count=2)
    >>> len(forks), forks.lacks
    (2, ())
    """

    def __init__(self, machines: Iterable[M], *, generation: int | None, lacks: tuple[int, ...]) -> None:
        super().__init__(machines)
        self.generation = generation
        """The snapshot that they begin with; None if that is the machine's very beginning."""
        self.lacks = lacks
        """Instructions that are not in it, because they ran or waited when the machine was forked."""
