"""The ledger in SQL: one object for the worker's side and the API's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from sqlalchemy import Engine

from torpor_api.ledger import machines
from torpor_api.ledger.api_side import ApiSide
from torpor_api.ledger.authenticated import Authenticated
from torpor_api.ledger.changes import Changes
from torpor_api.ledger.command_side import CommandSide
from torpor_api.ledger.database import open_engine
from torpor_api.ledger.file_side import FileSide
from torpor_api.ledger.migrate import migrate
from torpor_api.ledger.output import OutputLog
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.runtime_side import RuntimeSide
from torpor_api.ledger.segments import Segments
from torpor_api.ledger.snapshot_side import SnapshotSide
from torpor_api.ledger.writer import Writer

OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024


class SqlLedger(FileSide, ApiSide, CommandSide, SnapshotSide, RuntimeSide):
    """The truth about accounts, machines, their logs and snapshots; the worker's `Ledger` is a part of it.

    Each method is one transaction, durable when it returns. Use it from one event loop, and one process at a time.
    """

    changes: Changes
    """`with ledger.changes.watch(machine) as watch:` read, `await watch.wait(timeout_seconds)`, read again."""

    def __init__(self, engine: Engine, data_dir: Path, output_limit_bytes: int) -> None:
        """Use `open`."""
        self.changes = Changes()
        self._engine = engine
        self._segments = Segments(data_dir / "output")
        self._output_log = OutputLog(self._segments, output_limit_bytes)
        self._authenticated = Authenticated()
        self._writer = Writer(engine, self._segments, self.changes)
        self._readers = Readers(engine)

    @classmethod
    async def open(cls, url: str, data_dir: Path, *, output_limit_bytes: int = OUTPUT_LIMIT_BYTES) -> Self:
        """Open, and migrate, the database at `url` (`sqlite:` for `<data_dir>/torpor.db`, or `sqlite:///path`).

        Raises ValueError for other databases.
        """
        engine = open_engine(url, data_dir)
        await asyncio.to_thread(data_dir.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(migrate, engine)
        ledger = cls(engine, data_dir, output_limit_bytes)
        await ledger._remove_orphaned_output()
        return ledger

    async def close(self) -> None:
        """Finish what was asked for, and close the database."""
        await self._writer.close()
        await self._readers.close()
        self._segments.forget()
        self._engine.dispose()

    async def _remove_orphaned_output(self) -> None:
        """Remove files of machines whose deletion was cut short."""
        known = await self._readers.run(machines.names)
        for orphan in await asyncio.to_thread(self._segments.machines) - known:
            await asyncio.to_thread(self._segments.remove, orphan)
