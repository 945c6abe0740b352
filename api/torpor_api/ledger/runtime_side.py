"""What a worker's runtimes are asked of the truth: `RuntimeRecords` of `torpor_worker.runtime_shelf`, in SQL."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from torpor_api.ledger import machines, runtimes
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.writer import Writer
from torpor_snapshotter.runtime import Runtime
from torpor_worker.ledger import KeptRuntime


class RuntimeSide:
    """Each method is one transaction, durable when it returns."""

    _writer: Writer
    _readers: Readers

    async def register_runtime(self, runtime: Runtime, *, newest: bool) -> bool:
        """Know a runtime that is installed here; False if it is known with another sandbox binary, which stays so."""
        return await self._writer.run(lambda connection: runtimes.register(connection, runtime, newest=newest))

    async def runtimes_to_keep(self) -> list[tuple[str, str]]:
        """Series, and SHA-256 of the binary, of what is needed and the store does not have."""
        return await self._readers.run(runtimes.not_kept)

    async def kept_runtime(self, series: str) -> KeptRuntime | None:
        """Where the store has a runtime, if it does."""
        return await self._readers.run(lambda connection: runtimes.kept(connection, series))

    async def newest_runtime(self) -> str | None:
        """The series that new machines were given last."""
        return await self._readers.run(runtimes.newest)

    async def allot_runtime(self, series: str, keys: Iterable[str]) -> bool:
        """Register what is to be put into the store; False while some of it is about to be deleted."""
        return await self._writer.run(lambda connection: runtimes.allot(connection, series, keys))

    async def commit_runtime(self, series: str, runsc_sha256: str, place: KeptRuntime) -> None:
        """All of it is in the store."""
        await self._writer.run(lambda connection: runtimes.commit(connection, series, runsc_sha256, place))

    async def quarantined(self) -> dict[str, str]:
        """Every quarantined series, and why it is."""
        return await self._readers.run(runtimes.quarantined)

    async def is_quarantined(self, account: str, machine: str) -> bool:
        """Whether the machine runs no instructions because its runtime is quarantined. Raises `MachineNotFound`."""

        def work(connection: Connection) -> bool:
            return runtimes.quarantine_of(connection, machines.identify(connection, account, machine)) is not None

        return await self._readers.run(work)
