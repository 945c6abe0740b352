"""What was measured: two costs of the same thing, taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds that Torpor took, and seconds that the floor took, each round one of both."""

    what: str
    floor_name: str
    torpor_seconds: list[float]
    floor_seconds: list[float]
    most: float
    """The ratio of the medians that is aimed at."""

    @property
    def ratio(self) -> float:
        """Torpor's median over the floor's."""
        return statistics.median(self.torpor_seconds) / statistics.median(self.floor_seconds)


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(measurements: list[Measurement]) -> Table:
    """All of it for a terminal."""
    made = Table(title="Torpor against the floor, medians of rounds taken in turns")
    made.add_column("What")
    made.add_column("Torpor", justify="right", no_wrap=True)
    made.add_column("9 of 10", justify="right", no_wrap=True)
    made.add_column("The floor")
    made.add_column("Takes", justify="right", no_wrap=True)
    made.add_column("Rounds", justify="right")
    made.add_column("Ratio", justify="right")
    made.add_column("Target", justify="right")
    for measured in measurements:
        style = "green" if measured.ratio <= measured.most else "red"
        made.add_row(
            measured.what,
            _milliseconds(statistics.median(measured.torpor_seconds)),
            _milliseconds(statistics.quantiles(measured.torpor_seconds, n=10)[-1]),
            measured.floor_name,
            _milliseconds(statistics.median(measured.floor_seconds)),
            str(len(measured.torpor_seconds)),
            f"[{style}]{measured.ratio:.2f}[/]",
            f"≤ {measured.most}",
        )
    return made


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
