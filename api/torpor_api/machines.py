"""The seam between the API and the machines that are awake: what the API asks of the worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torpor_worker.exporting import Exported
from torpor_worker.ledger import Entry, Snapshot
from torpor_worker.machine_files import MachineFiles
from torpor_worker.sandbox import Completion
from torpor_worker.snapshots import Stored


class Machines(Protocol):
    """Machines by name. The ledger says whose they are; ask it first. Methods may raise `WorkerError`."""

    def deliver(self, machine: str, entry: Entry | None) -> None:
        """Say that an entry was accepted; None if it is not started yet. Only a hint: the log is the queue."""
        ...

    @property
    def files(self) -> MachineFiles:
        """Work on files of machines, which are woken for it."""
        ...

    async def interrupt(self, machine: str, seq: int | None, *, coming: bool = False) -> int | None:
        """End the running instruction, or only `seq`; the seq of the one that is ended, None if none is.

        With `coming`, `seq` is ended too if it has been accepted and is yet to begin.
        """
        ...

    async def wake(self, machine: str) -> None:
        """Wake it and wait until it is awake."""
        ...

    async def sleep(self, machine: str) -> bool:
        """Put it to sleep and wait until it is asleep; False if it has something to do."""
        ...

    async def sync(self, machine: str) -> None:
        """Save it, and wait until the snapshot is committed; nothing happens if it is asleep."""
        ...

    async def complete(self, machine: str, code: str, cursor: int) -> Completion:
        """What could follow behind `cursor` characters of code, once it is awake; nothing while it runs something."""
        ...

    async def crash(self, machine: str) -> bool:
        """Kill its process as an accident would; False if it is not awake."""
        ...

    async def export(self, machine: str, memory_bytes: int, snapshots: list[Snapshot], into: Path) -> Exported:
        """Write files and variables of the first of a parked machine's snapshots that still starts to a file."""
        ...

    def change_settings(self, machine: str) -> None:
        """Say that its settings or tags were changed. Only a hint: the ledger has them."""
        ...

    def memory_bytes(self, machine: str) -> int:
        """What it uses now; 0 if it is not awake."""
        ...

    async def derive(
        self, machine: str, source: Snapshot, keys: Mapping[str, str], tags: dict[str, str] | None = None
    ) -> dict[str, Stored]:
        """Store a machine's snapshot once more for each new machine in `keys`, under its key, as its generation 0.

        No copy of what it holds. Without `tags` their manifests name those of the source.
        """
        ...

    async def withdraw(self, machine: str, key: str) -> None:
        """Take back what `derive` has stored under `key`: there will be no such machine."""
        ...

    async def discard(self, machine: str) -> None:
        """Let go of its process: it was deleted."""
        ...
