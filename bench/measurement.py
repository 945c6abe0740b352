"""What was measured: two costs of the same thing, taken in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

Statistic = Literal["median", "99th percentile"]
Comparison = Literal["ratio", "difference"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds that Torpor took, and seconds that the floor took, each round one of both."""

    what: str
    floor_name: str
    torpor_seconds: list[float]
    floor_seconds: list[float]
    most: float
    """The ratio that is aimed at, or the difference in milliseconds."""
    statistic: Statistic = "median"
    """Of what it is one."""
    compared: Comparison = "ratio"

    @property
    def result(self) -> float:
        """Torpor's over the floor's; as a difference the milliseconds that it takes longer."""
        value = statistics.median if self.statistic == "median" else percentile_99
        torpor, floor = value(self.torpor_seconds), value(self.floor_seconds)
        return torpor / floor if self.compared == "ratio" else (torpor - floor) * 1000

    def shown(self, number: str) -> str:
        """The result, or what is aimed at, with its unit."""
        return number if self.compared == "ratio" else f"{number} ms"


def percentile_99(seconds: list[float]) -> float:
    """What 99 of 100 do not exceed; of fewer, the longest."""
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(measurements: list[Measurement]) -> Table:
    """All of it for a terminal."""
    made = Table(title="Torpor against the floor, rounds taken in turns: medians, and what 99 of 100 do not exceed")
    made.add_column("What")
    made.add_column("Torpor", justify="right", no_wrap=True)
    made.add_column("99 of 100", justify="right", no_wrap=True)
    made.add_column("The floor")
    made.add_column("Takes", justify="right", no_wrap=True)
    made.add_column("99 of 100", justify="right", no_wrap=True)
    made.add_column("Rounds", justify="right")
    made.add_column("Ratio, or more", justify="right", no_wrap=True)
    made.add_column("Target", justify="right")
    for measured in measurements:
        result = measured.shown(f"{measured.result:.2f}")
        style = "green" if measured.result <= measured.most else "red"
        made.add_row(
            measured.what,
            _milliseconds(statistics.median(measured.torpor_seconds)),
            _milliseconds(percentile_99(measured.torpor_seconds)),
            measured.floor_name,
            _milliseconds(statistics.median(measured.floor_seconds)),
            _milliseconds(percentile_99(measured.floor_seconds)),
            str(len(measured.torpor_seconds)),
            f"[{style}]{result}[/]{'' if measured.statistic == 'median' else ' of 99'}",
            f"≤ {measured.shown(str(measured.most))}",
        )
    return made


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
