"""What is asked of the truth about changes of files, and about what they write."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from sqlalchemy import Connection

from torpor_api.ledger import file_changes
from torpor_api.ledger.worker_side import WorkerSide
from torpor_worker.ledger import Entry, Hold

MACHINES_AT_ONCE = 20


class FileSide(WorkerSide):
    """Each method is one transaction, durable when it returns."""

    async def log_change(
        self, hold: Hold, text: str, body: str | None, body_bytes: int, *, behind: int
    ) -> Entry | None:
        """Write a change of files into the log; None if something was started behind `behind`."""

        def work(connection: Connection, machine_id: int) -> Entry | None:
            return file_changes.write(connection, machine_id, text, body, body_bytes, behind=behind)

        return await self._write(hold, work)

    async def knows_change(self, hold: Hold, text: str) -> bool:
        """Whether a change of files with this text is in the log, was made, and was not left behind."""
        return await self._read(hold, lambda connection, machine_id: file_changes.knows(connection, machine_id, text))

    async def undo_change(self, hold: Hold, position: int) -> None:
        """A change of files could not be made, and is never made again."""
        await self._write(hold, lambda connection, machine_id: file_changes.undo(connection, machine_id, position))

    async def release_bodies(self, after: int = 0) -> int:
        """Give up bodies that the next few machines behind the id `after` do not need; the id to go on from."""
        ids = await self._readers.run(
            lambda connection: file_changes.machines_with_bodies(connection, after, MACHINES_AT_ONCE)
        )
        for machine_id in ids:
            await self._writer.run(partial(file_changes.release, machine_id=machine_id))
        return ids[-1] if len(ids) == MACHINES_AT_ONCE else 0

    async def owners_of_bodies(self) -> dict[str, str]:
        """The account of each body that a log refers to, by key."""
        return await self._readers.run(file_changes.owners)

    async def unreferred_bodies(self, keys: Collection[str]) -> list[str]:
        """Those keys that no log refers to."""
        return await self._readers.run(lambda connection: file_changes.unreferred(connection, keys))
