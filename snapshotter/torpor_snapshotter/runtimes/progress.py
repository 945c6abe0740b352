"""How a build says what it is waiting for."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Told what is going on, from several threads."""

    def __call__(self, task: str, fraction: float | None = None) -> None:
        """`task` is a sentence for people; `fraction` how much of it is done (1: all), None when nobody knows."""
        ...
