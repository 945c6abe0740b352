"""What a worker counts and times, for Prometheus: in a registry of its own, written where it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
INSTRUCTION_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)
WAKE_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5.0, 30.0)
SAVE_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0, 300.0)


class Metrics:
    """Every number that `GET /metrics` shows. All of it is changed from one event loop."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._measures: list[Callable[[], None]] = []
        self.wake_seconds = Histogram(
            "torpor_wake_seconds",
            "From the moment a worker begins to wake a machine until it takes instructions.",
            buckets=WAKE_SECONDS,
            registry=registry,
        )
        self.wake_phase_seconds = Histogram(
            "torpor_wake_phase_seconds",
            "The parts of a wake, those that took no time left out; docs/metrics.md says what each is.",
            ["phase"],
            buckets=WAKE_SECONDS,
            registry=registry,
        )
        self.save_seconds = Histogram(
            "torpor_save_seconds",
            "What a save costs: from its beginning until it is committed.",
            buckets=SAVE_SECONDS,
            registry=registry,
        )
        self.save_stored_bytes = Counter(
            "torpor_save_stored_bytes", "What saves have added to the store.", registry=registry
        )
        self.save_failures = Counter("torpor_save_failures", "Saves that failed.", registry=registry)
        self.instruction_seconds = Histogram(
            "torpor_instruction_seconds",
            "From an instruction's frame until its result is committed.",
            buckets=INSTRUCTION_SECONDS,
            registry=registry,
        )
        self.instruction_save_wait_seconds = Histogram(
            "torpor_instruction_save_wait_seconds",
            "How long instructions that waited for saves of their own machine waited for them.",
            buckets=INSTRUCTION_SECONDS,
            registry=registry,
        )
        self.awake_machines = Gauge("torpor_awake_machines", "Machines that are awake here.", registry=registry)
        self.waking_machines = Gauge(
            "torpor_waking_machines", "Machines that are being brought back here.", registry=registry
        )
        self.pool_sandboxes = Gauge(
            "torpor_pool_sandboxes",
            "Sandboxes that wait: for a new machine, or for a wake.",
            ["pool"],
            registry=registry,
        )
        self.sandbox_memory_bytes = Gauge(
            "torpor_sandbox_memory_bytes", "What sandboxes use, those that wait included.", registry=registry
        )
        self.stored_bytes = Gauge(
            "torpor_stored_bytes", "What snapshots and templates take in the store.", registry=registry
        )

    def measured_by(self, measure: Callable[[], None]) -> None:
        """Have gauges set by `measure` whenever somebody looks; it is quick, and called from the event loop."""
        self._measures.append(measure)

    async def text(self) -> bytes:
        """All of it as it is now, in Prometheus' text format."""
        for measure in self._measures:
            measure()
        return await asyncio.to_thread(generate_latest, self._registry)
