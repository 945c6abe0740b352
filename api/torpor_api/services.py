"""What the API stands on: the ledger, the machines, the settings, and whether it is stopping."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from torpor_api.config import Config
from torpor_api.errors import ShuttingDown
from torpor_api.ledger import SqlLedger
from torpor_api.machines import Machines
from torpor_api.once import Once
from torpor_worker.metrics import Metrics


@dataclass(slots=True)
class Stopping:
    """A stop has two steps: first no new work is taken, at last nothing is waited for any more."""

    draining: bool = False
    over: bool = False

    def refuse_work(self) -> None:
        """Raise `ShuttingDown` once the stop has begun."""
        if self.draining:
            raise ShuttingDown

    def refuse_waiting(self) -> None:
        """Raise `ShuttingDown` when nothing can be waited for any more."""
        if self.over:
            raise ShuttingDown


@dataclass(frozen=True, slots=True)
class Services:
    """One server's parts, made before the first request and closed after the last."""

    ledger: SqlLedger
    machines: Machines
    config: Config
    stopping: Stopping = field(default_factory=Stopping)
    once: Once = field(default_factory=Once)
    metrics: Metrics = field(default_factory=Metrics)

    def end_waits(self) -> None:
        """End every long poll and stream: the server goes down now."""
        self.stopping.draining = self.stopping.over = True
        self.ledger.changes.notify_everyone()


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that handles this connection."""
    services = connection.app.state.services
    assert isinstance(services, Services)  # noqa: S101 (tells the type of Starlette's untyped state)
    return services
