"""The runtimes of this host, and those that it can have from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import structlog

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes import RuntimeMissing, current, installed
from torpor_snapshotter.runtimes.folder import read_runtime
from torpor_worker.ledger import KeptRuntime
from torpor_worker.sandbox import RuntimeUnavailable
from torpor_worker.snapshots import DescribedRuntime, SnapshotterError

log = structlog.get_logger(__name__)

KEEP_AFTER_SECONDS = 10.0
"""To digest a runtime takes seconds of a processor, which a server that has just started needs for sandboxes."""
KEEP_AGAIN_SECONDS = 60.0
"""How long to wait after the store has refused a runtime."""
CONDEMNED_SECONDS = 5.0
"""How long to wait while an object that is needed again is about to be deleted."""
TELL_EVERY = 0.1
"""Of a runtime that is being fetched: how much more of it is worth a line in the log."""


class RuntimeRecords(Protocol):
    """What is asked of the ledger."""

    async def register_runtime(self, runtime: Runtime, *, newest: bool) -> bool:
        """Know a runtime that is installed here; False if it is known with another sandbox binary, which stays so."""
        ...

    async def runtimes_to_keep(self) -> list[tuple[str, str]]:
        """Series, and SHA-256 of the binary, of what is needed and the store does not have."""
        ...

    async def kept_runtime(self, series: str) -> KeptRuntime | None:
        """Where the store has a runtime, if it does."""
        ...

    async def newest_runtime(self) -> str | None:
        """The series that new machines were given last."""
        ...

    async def quarantined(self) -> dict[str, str]:
        """Every quarantined series, and why it is."""
        ...

    async def allot_runtime(self, series: str, keys: Iterable[str]) -> bool:
        """Register what is to be put into the store; False while some of it is about to be deleted."""
        ...

    async def commit_runtime(self, series: str, runsc_sha256: str, place: KeptRuntime) -> None:
        """All of it is in the store."""
        ...


class RuntimeStore(Protocol):
    """What is asked of the snapshotter. Every method may raise `SnapshotterError`."""

    async def describe_runtime(self, folder: Path) -> DescribedRuntime:
        """What the store would have of an installed runtime."""
        ...

    async def keep_runtime(self, folder: Path, described: DescribedRuntime) -> None:
        """Put what the store lacks of an installed runtime, whenever nothing else is asked for."""
        ...

    async def bring_runtime(self, key: str, sha256: str, data_dir: Path, progress: Progress) -> Path:
        """Install a runtime from the store; its folder. `progress` is told how much of it is there."""
        ...


class Progress(Protocol):
    """Told how much of something is done, from 0 to 1."""

    def __call__(self, fraction: float, /) -> None:
        """So much is done."""
        ...


class RuntimeShelf:
    """Finds runtimes by their series. In the background it puts those that are needed into the store."""

    def __init__(self, data_dir: Path, records: RuntimeRecords, store: RuntimeStore) -> None:
        self._data_dir = data_dir
        self._records = records
        self._store = store
        self._being_brought: dict[str, asyncio.Task[Runtime]] = {}

    async def newest(self, tell: Callable[[str], None]) -> Runtime:
        """The runtime for new machines; where none is installed, the one that the last host gave them, from the store.

        `tell` is told what takes long. Raises `RuntimeMissing`.
        """
        quarantined = await self._records.quarantined()
        try:
            found = await asyncio.to_thread(current, self._data_dir, quarantined)
        except RuntimeMissing:
            last = await self._records.newest_runtime()
            if last is None or last in quarantined or await self._records.kept_runtime(last) is None:
                raise
            tell(f"Fetching runtime {last} from the store ...")
            try:
                return await self.find(last)
            except RuntimeUnavailable as error:
                raise RuntimeMissing(f"There is no runtime on this host. {error}") from error
        if found.series in quarantined:
            tell("Every runtime that is installed is quarantined: no instruction is run.")
        return found

    async def register(self, newest: Runtime) -> None:
        """Tell the ledger what is installed here, and which of it new machines get."""
        for runtime in await asyncio.to_thread(installed, self._data_dir):
            if not await self._records.register_runtime(runtime, newest=runtime.series == newest.series):
                log.warning(
                    "This host has another sandbox binary of a runtime than was admitted: "
                    "`torpor runtime fetch SERIES` brings that one.",
                    action="runtime",
                    series=runtime.series,
                )

    async def find(self, series: str) -> Runtime:
        """A runtime that is installed here, brought from the store if it must. Raises `RuntimeUnavailable`."""
        for runtime in await asyncio.to_thread(installed, self._data_dir):
            if runtime.series == series:
                return runtime
        bringing = self._being_brought.get(series)
        if bringing is None:
            bringing = asyncio.create_task(self._bring(series), name=f"runtime:{series}")
            self._being_brought[series] = bringing
            bringing.add_done_callback(lambda _: self._being_brought.pop(series))
        return await asyncio.shield(bringing)

    async def keep(self) -> None:
        """Put every runtime that is needed into the store, once; ends when all are there."""
        wait_seconds = KEEP_AFTER_SECONDS
        while wait_seconds:
            await asyncio.sleep(wait_seconds)
            try:
                wait_seconds = await self._keep_missing()
            except SnapshotterError as error:
                log.warning("A runtime could not be put into the store", action="runtime", error=str(error))
                wait_seconds = KEEP_AGAIN_SECONDS
            except Exception:
                log.exception("Keeping runtimes failed; it is tried again", action="runtime")
                wait_seconds = KEEP_AGAIN_SECONDS

    async def close(self) -> None:
        """Give up what is being brought."""
        tasks = list(self._being_brought.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring(self, series: str) -> Runtime:
        place = await self._records.kept_runtime(series)
        if place is None:
            raise RuntimeUnavailable(
                f"It needs runtime {series}, which is neither on this host nor in the store. Bring it from a host that "
                "has it with `torpor runtime export` and `torpor runtime import`."
            )
        log.info("Fetching a runtime from the store", action="runtime", series=series)
        told = 0.0

        def tell(fraction: float) -> None:
            nonlocal told
            if fraction - told >= TELL_EVERY:
                told = fraction
                log.info("Fetching a runtime from the store", action="runtime", series=series, fraction=fraction)

        try:
            folder = await self._store.bring_runtime(place.key, place.sha256, self._data_dir, tell)
        except SnapshotterError as error:
            raise RuntimeUnavailable(
                f"It needs runtime {series}, which could not be fetched from the store: {error}"
            ) from error
        log.info("A runtime was fetched from the store", action="runtime", series=series)
        return await asyncio.to_thread(read_runtime, folder)

    async def _keep_missing(self) -> float:
        """Keep those that can be kept; after how long to try again, 0 for never."""
        wait_seconds = 0.0
        here = {runtime.series: runtime for runtime in await asyncio.to_thread(installed, self._data_dir)}
        for series, runsc_sha256 in await self._records.runtimes_to_keep():
            runtime = here.get(series)
            if runtime is None or runtime.runsc_sha256 != runsc_sha256:
                continue  # a host that has it keeps it
            folder = runtime.rootfs.parent
            described = await self._store.describe_runtime(folder)
            if not await self._records.allot_runtime(series, described.keys):
                wait_seconds = CONDEMNED_SECONDS
                continue
            await self._store.keep_runtime(folder, described)
            await self._records.commit_runtime(series, runsc_sha256, KeptRuntime(described.key, described.sha256))
            log.info("A runtime was put into the store", action="runtime", series=series)
        return wait_seconds
