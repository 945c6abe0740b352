"""One server from its start to its end: ledger, snapshotter, sandboxes, worker, API."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import structlog

from torpor_api.app import create_app
from torpor_api.client_settings import client_settings_path
from torpor_api.collector import Collector
from torpor_api.config import Config
from torpor_api.export import remove_leftovers
from torpor_api.first_key import introduce, prepare_accounts
from torpor_api.ledger import LogRetention, SqlLedger
from torpor_api.mounts import mounts
from torpor_api.server import Server, make_server, url_of
from torpor_api.services import Services
from torpor_worker.bodies import Bodies, BodyLimits
from torpor_worker.config import WorkerConfig
from torpor_worker.gvisor import GVisorHost
from torpor_worker.local_images import LocalImages
from torpor_worker.metrics import Metrics
from torpor_worker.packages.asked import Rules
from torpor_worker.packages.fetching import Packages
from torpor_worker.runtime_shelf import RuntimeShelf
from torpor_worker.snapshotter_process import SnapshotterProcess
from torpor_worker.templates import Templates
from torpor_worker.worker import Worker

log = structlog.get_logger(__name__)

Tell = Callable[[str], None]

CLOSE_SECONDS = 30.0
"""How long each part may take to close at the end."""
LOCAL_IMAGES_BYTES = 10 * 1024**3
FORCED_STATUS = 1
"""Exit status of a stop that could not save everything; nothing acknowledged is lost by it."""


async def serve(config: Config, folder: Path, listener: socket.socket, tell: Tell) -> int:
    """Run until a signal ends it; the exit status: 0 if everything was saved."""
    signals = Signals()
    url = url_of(listener)
    async with parts(config, folder, tell) as (services, worker):
        api_key = await prepare_accounts(services.ledger, config)
        mounted = mounts(url)
        server = make_server(create_app(services, mounted))
        serving = asyncio.create_task(server.serve([listener]), name="http server")
        gc.freeze()  # what is there now stays: collections, which stop every request, need not look at it
        with signals:
            introduce(tell, url, api_key, client_settings_path())
            tell(f"Torpor is at {url}")
            log.info("The server is ready.", action="ready", url=url)
            await _first_of(serving, signals.stop)
            saved = await _stop(config, services, worker, server, serving, signals, tell)
            for mount in mounted:
                await _close(mount.path, mount.close)
    return 0 if saved else FORCED_STATUS


class Signals:
    """The first SIGTERM or SIGINT asks for a stop, the second for its end, the third ends the process."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _received(self) -> None:
        if self.force.is_set():
            os._exit(FORCED_STATUS)
        if self.stop.is_set():
            self.force.set()
        self.stop.set()


@asynccontextmanager
async def parts(config: Config, folder: Path, tell: Tell) -> AsyncIterator[tuple[Services, Worker]]:
    """Everything behind the API, started in order and closed in the opposite one."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(remove_leftovers, folder)
        tell("Opening the ledger ...")
        ledger = await SqlLedger.open(config.database, folder, output_limit_bytes=int(config.output_limit))
        stack.push_async_callback(_close, "ledger", ledger.close)
        tell("Starting the snapshotter ...")
        snapshotter = SnapshotterProcess(
            config.store, config.keys, cache_folder=folder / "cache", cache_bytes=int(config.store_cache)
        )
        stack.push_async_callback(_close, "snapshotter", snapshotter.close)
        await snapshotter.start()
        await snapshotter.check()
        await snapshotter.claim(await ledger.identity(), has_objects=await ledger.knows_objects())
        tell("Preparing sandboxes ...")
        shelf = RuntimeShelf(folder, ledger, snapshotter)
        stack.push_async_callback(_close, "runtimes", shelf.close)
        runtime = await shelf.newest(tell)
        await shelf.register(runtime)
        host = GVisorHost(runtime, folder / "sandboxes", find=shelf.find)
        stack.push_async_callback(_close, "sandboxes", host.close)
        images = await asyncio.to_thread(LocalImages, folder / "images", LOCAL_IMAGES_BYTES)
        bodies = await asyncio.to_thread(Bodies, folder / "files", body_limits(config))
        await asyncio.to_thread(bodies.count, await ledger.owners_of_bodies())
        metrics = Metrics()
        worker = Worker(
            ledger,
            host,
            snapshotter,
            images,
            worker_config(config),
            Templates(folder / "templates", host),
            metrics,
            bodies,
            Packages(package_rules(config), folder / "packages"),
        )
        await worker.start()
        retention = LogRetention(config.log_days, config.output_days, config.events_days)
        collector = Collector(
            ledger,
            snapshotter,
            worker.keys_in_use,
            lambda machine: worker.phase(machine) is not None,
            retention,
            bodies,
        )
        background = {asyncio.create_task(collector.run(), name="collector")}
        if config.keep_runtimes:
            background.add(asyncio.create_task(shelf.keep(), name="keep runtimes"))
        try:
            yield Services(ledger=ledger, machines=worker, config=config, metrics=metrics), worker
        finally:
            for task in background:
                task.cancel()
            await asyncio.wait(background)


def worker_config(config: Config) -> WorkerConfig:
    """What the worker is told of the settings."""
    return WorkerConfig(
        total_memory_bytes=config.memory_total_bytes,
        adopt=config.adopt,
        warm_machines=config.warm_machine_count,
        spare_sandboxes=config.spare_sandbox_count,
        quiet_save_seconds=config.quiet_save_seconds,
        save_interval_seconds=config.save_interval_seconds,
        output_limit_bytes=int(config.output_limit),
    )


def body_limits(config: Config) -> BodyLimits:
    """What uploads may take."""
    return BodyLimits(int(config.uploads_per_account), int(config.disk_reserve))


def package_rules(config: Config) -> Rules:
    """What machines may be handed."""
    index = None if config.package_index is None else config.package_index.get_secret_value()
    return Rules(index, config.package_allow, int(config.package_bytes))


async def _stop(
    config: Config,
    services: Services,
    worker: Worker,
    server: Server,
    serving: asyncio.Task[None],
    signals: Signals,
    tell: Tell,
) -> bool:
    """Take no more work, save every awake machine, end what waits; whether all was saved."""
    services.stopping.draining = True
    tell(f"Stopping: saving awake machines, for {config.drain_seconds:g} s at most; a second signal ends it at once.")
    awake = {machine for machine in await services.ledger.mine() if worker.phase(machine) == "awake"}
    draining = asyncio.create_task(worker.drain(config.drain_seconds), name="drain")
    await _first_of(draining, signals.force, config.drain_seconds + CLOSE_SECONDS)
    if not draining.done():
        draining.cancel()
        await asyncio.wait({draining}, timeout=CLOSE_SECONDS)
    elif error := draining.exception():
        log.error("Not every awake machine could be saved.", action="drain", exc_info=error)
    saved = awake.isdisjoint(await services.ledger.mine())
    services.end_waits()
    server.should_exit = True
    server.force_exit = signals.force.is_set()
    await serving
    tell("Stopped." if saved else "Stopped before every machine was saved; what was not is recovered from the log.")
    return saved


async def _first_of(task: asyncio.Task[None], event: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until the task ends, the event is set or the time is over, whichever comes first."""
    waiting = asyncio.create_task(event.wait(), name="signal")
    try:
        await asyncio.wait({task, waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _close(name: str, close: Callable[[], object]) -> None:
    """Close a part; one that does not close must not keep the others open."""
    with suppress(asyncio.CancelledError):
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await close()  # type: ignore[misc]
        except Exception:
            log.exception("A part of the server did not close.", part=name)
