"""Destroys keys and deletes objects that nothing needs any more: the thing first, then the row that condemned it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from torpor_api.ledger import LogRetention, SqlLedger
from torpor_worker.bodies import Bodies
from torpor_worker.snapshots import Snapshotter, SnapshotterError

INTERVAL_SECONDS = 10.0
START_SECONDS = 5.0
"""To list a large store takes the processors from those who wait for the server, and nobody waits for this."""

log = structlog.get_logger()


class Collector:
    """Applies what the ledger has decided.

    `in_use` gives the keys that a wake reads, or a save writes, just now; `is_held` whether a save of a machine may be
    under way, though it was deleted. Conditions of docs/protocol (`keeping.py`): LISTED_FIRST, KEY_ROW_LAST,
    KEY_AFTER_SAVES.
    """

    def __init__(
        self,
        ledger: SqlLedger,
        snapshotter: Snapshotter,
        in_use: Callable[[], set[str]],
        is_held: Callable[[str], bool],
        retention: LogRetention | None = None,
        bodies: Bodies | None = None,
    ) -> None:
        """Without a retention log, output and events are kept for ever."""
        self._bodies = bodies
        self._released_up_to = 0
        self._retention = retention or LogRetention()
        self._expired_up_to = 0
        self._is_held = is_held
        self._ledger = ledger
        self._snapshotter = snapshotter
        self._in_use = in_use
        self._thinned_up_to = 0

    async def collect(self) -> int:
        """Destroy condemned keys, then delete condemned objects that are not in use; how many of these.

        Raises `SnapshotterError` when the store fails.
        """
        for machine in await self._ledger.condemned_machines():
            was_held = self._is_held(machine)
            await self._snapshotter.destroy_key(machine)
            if not was_held:  # else the save could have made the key anew: once more in the next round
                await self._ledger.forget_condemned_machine(machine)
        deleted: list[str] = []
        try:
            for key in await self._ledger.condemned():
                if key not in self._in_use():
                    await self._snapshotter.delete(key)
                    deleted.append(key)
        finally:
            if deleted:
                await self._ledger.forget_condemned(deleted)
        return len(deleted)

    async def collect_unknown(self) -> int:
        """Delete objects that no row names; how many. For the start, when no save is under way.

        The store is listed before the rows are read: a key is registered before its object is put.
        """
        stored = await self._snapshotter.list()
        known = await self._ledger.known_keys() | set(await self._ledger.condemned())
        unknown = [key for key in stored if key not in known and key not in self._in_use()]
        for key in unknown:
            await self._snapshotter.delete(key)
        return len(unknown)

    async def thin_out(self) -> None:
        """Give up what the time has made superfluous of the next few machines: who sleeps saves nothing any more."""
        self._thinned_up_to = await self._ledger.thin_out(self._thinned_up_to)

    async def expire(self) -> None:
        """Give up what is too old of log, output and events of the next few machines."""
        self._expired_up_to = await self._ledger.expire(self._retention, self._expired_up_to)

    async def release_bodies(self) -> None:
        """Give up what was written to files of the next few machines, and no recovery can need any more."""
        self._released_up_to = await self._ledger.release_bodies(self._released_up_to)

    async def sweep_bodies(self) -> int:
        """Delete what no log refers to; how many: given up, of machines that are gone, of uploads that were cut short.

        What is there is listed before the rows are read: whoever writes one holds it until its row is there.
        """
        if self._bodies is None:
            return 0
        found = await asyncio.to_thread(lambda bodies: list(bodies.keys()), self._bodies)
        unreferred = await self._ledger.unreferred_bodies(found)
        await self._bodies.remove(unreferred)
        return len(unreferred)

    async def run(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Collect for ever. A store or a ledger that fails (a full disk) is tried again in the next round."""
        start = True
        await asyncio.sleep(START_SECONDS)
        while True:
            try:
                if start:
                    unknown = await self.collect_unknown()
                    start = False
                    if unknown:
                        log.info("Deleted objects that no snapshot names", action="collected", objects=unknown)
                await self.thin_out()
                await self.expire()
                await self.release_bodies()
                await self.sweep_bodies()
                await self.collect()
            except SnapshotterError as error:
                log.warning("Cannot delete what is not needed any more", action="collect_failed", reason=str(error))
            except Exception:
                log.exception("Collecting failed; the next round follows", action="collect_failed")
            await asyncio.sleep(interval_seconds)
