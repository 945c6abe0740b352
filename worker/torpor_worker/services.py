"""What every machine of a worker shares."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from torpor_worker.admission import Admission
from torpor_worker.beginnings import Beginnings
from torpor_worker.bodies import Bodies
from torpor_worker.config import WorkerConfig
from torpor_worker.handing_in import HandingIn
from torpor_worker.images import Images
from torpor_worker.ledger import Fenced, HeadMoved, Ledger
from torpor_worker.metrics import Metrics
from torpor_worker.sandbox import SandboxHost
from torpor_worker.snapshots import Snapshotter

PATIENCE = 4
"""Tries of a ledger call whose failure would cost a process."""


@dataclass(frozen=True, slots=True)
class Services:
    """The seams, and the settings, that machines are run with."""

    ledger: Ledger
    host: SandboxHost
    snapshotter: Snapshotter
    images: Images
    config: WorkerConfig
    admission: Admission
    beginnings: Beginnings
    metrics: Metrics
    bodies: Bodies | None = None
    """What changes of files write; None: there can be none."""
    handing_in: HandingIn | None = None
    """Who answers asks for packages; None: nobody does."""

    async def durably(self, write: Callable[[], Awaitable[None]]) -> None:
        """Make a write that is idempotent, or changes nothing when it fails; try again before giving up.

        A passing failure of the ledger (a full disk, a busy database) must not cost a machine its process.
        """
        for failures in range(1, PATIENCE):
            try:
                return await write()
            except (Fenced, HeadMoved):
                raise
            except Exception:
                await asyncio.sleep(self.config.backoff_seconds(failures))
        return await write()
