"""One worker: the machines that it holds, and who looks after them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from torpor_worker.admission import Admission
from torpor_worker.beginnings import Beginnings
from torpor_worker.bodies import Bodies
from torpor_worker.config import WorkerConfig
from torpor_worker.errors import Draining, FellAsleep, SaveRefused, WorkerError
from torpor_worker.exporting import Exported, export
from torpor_worker.handing_in import HandingIn
from torpor_worker.images import Images
from torpor_worker.ledger import Entry, Ledger, Snapshot
from torpor_worker.machine import Machine, Phase
from torpor_worker.machine_files import MachineFiles
from torpor_worker.metrics import Metrics
from torpor_worker.packages.fetching import Packages
from torpor_worker.sandbox import Completion, SandboxError, SandboxHost
from torpor_worker.services import Services
from torpor_worker.snapshots import Snapshotter, SnapshotterError, Stored
from torpor_worker.survivors import Survivor
from torpor_worker.templates import Templates

log = structlog.get_logger(__name__)


class Worker:
    """Runs machines: wakes those that are called, saves them, lets them sleep, brings back those that died.

    Every method is called from one event loop. Hints may be lost or repeated: the log is the queue.
    """

    def __init__(
        self,
        ledger: Ledger,
        host: SandboxHost,
        snapshotter: Snapshotter,
        images: Images,
        config: WorkerConfig,
        templates: Templates | None = None,
        metrics: Metrics | None = None,
        bodies: Bodies | None = None,
        packages: Packages | None = None,
    ) -> None:
        """The worker closes none of these. Without `packages` machines are handed in none."""
        self._ledger = ledger
        self._host = host
        self._images = images
        self._config = config
        self._admission = Admission(config, self._used_bytes, self._free_some)
        self._beginnings = Beginnings(ledger, host, snapshotter, self._admission, config, templates)
        self._metrics = Metrics() if metrics is None else metrics
        self._metrics.measured_by(self._measure)
        self._files = None if bodies is None else MachineFiles(self._held, ledger, bodies, lambda: self._draining)
        self._handing_in = HandingIn(ledger, self._files, packages)
        self._services = Services(
            ledger,
            host,
            snapshotter,
            images,
            config,
            self._admission,
            self._beginnings,
            self._metrics,
            bodies,
            self._handing_in,
        )
        self._machines: dict[str, Machine] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._draining = False

    async def start(self) -> None:
        """Open the session, and begin to take machines over and to run those that wait.

        Sandboxes that have outlived the last worker and hold a machine that was its own are gone on with; the others
        are removed, and machines without one recovered.
        """
        await self._ledger.open_session(self._config.name)
        survivors = await self._survivors() if self._config.adopt else {}
        await self._host.remove_leftovers(keep=[survivor.id for survivor in survivors.values()])
        await self._beginnings.start()
        for machine, survivor in survivors.items():
            self._held(machine, recovering=True, survivor=survivor)
        await self._place()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="sweeper")

    async def _survivors(self) -> dict[str, Survivor]:
        """Sandboxes to take over, by machine; of two of one machine nobody knows which, so it has none."""
        mine = set(await self._ledger.mine())
        found: dict[str, list[Survivor]] = {}
        for survivor in await self._host.survivors():
            found.setdefault(survivor.facts.machine, []).append(survivor)
        return {machine: each[0] for machine, each in found.items() if machine in mine and len(each) == 1}

    async def drain(self, deadline_seconds: float) -> None:
        """Save and release every machine, also in mid-instruction; what is not done at the deadline is ended anyway.

        Nothing acknowledged is lost either way: what was not released is recovered by the next session. Raises
        `SaveRefused` if any was not. If this is cancelled, the deadline is now.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        closing = [
            loop.create_task(self._handing_in.close(), name="packages: close"),
            loop.create_task(self._beginnings.close(), name="templates: close"),
        ]
        tasks = dict(self._tasks)
        saving = [task for name, task in tasks.items() if self._machines[name].drain()]
        for task in tasks.values():
            if task not in saving:
                task.cancel()
        late: set[asyncio.Task[None]] = set(saving)
        try:
            if self._sweeper is not None:
                self._sweeper.cancel()
                await asyncio.gather(self._sweeper, return_exceptions=True)
            if saving:
                _, late = await asyncio.wait(saving, timeout=deadline_seconds)
        finally:
            for task in late:
                task.cancel()
            await asyncio.gather(*closing, *tasks.values(), return_exceptions=True)
        if late:
            raise SaveRefused(
                f"{len(late)} awake machines could not be saved in time; they are recovered from the log."
            )

    def deliver(self, machine: str, entry: Entry | None) -> None:
        """A hint: this machine has an accepted entry (a started one if it was free), or None: look yourself."""
        if not self._draining:
            self._held(machine).deliver(entry)
        elif machine in self._machines:
            self._machines[machine].deliver(entry)

    async def interrupt(self, machine: str, seq: int | None, *, coming: bool = False) -> int | None:
        """Begin to end what runs; its seq, None if nothing runs, or something else than `seq`.

        With `coming`, `seq` is ended too if it was accepted and is yet to begin.
        """
        held = self._machines.get(machine)
        return None if held is None else held.interrupt(seq, coming=coming)

    async def wake(self, machine: str) -> None:
        """Wake it, and wait until it is awake. Raises `CannotWake`, `MachineGone`, `Draining`."""
        while True:
            if self._draining:
                raise Draining("The server is stopping.")
            with contextlib.suppress(FellAsleep):
                return await self._held(machine).awake()
            await asyncio.sleep(0)  # until its task has ended

    @property
    def files(self) -> MachineFiles:
        """Work on the files of its machines."""
        if self._files is None:
            raise RuntimeError("this worker was given no place for what files are written with")
        return self._files

    async def sleep(self, machine: str) -> bool:
        """Put it to sleep now; False if it has something to do. Raises `SaveRefused`."""
        held = self._machines.get(machine)
        if held is None:
            return True
        try:
            return await held.sleep()
        except FellAsleep:
            return self.phase(machine) is None

    async def sync(self, machine: str) -> None:
        """Make all that has finished durable, after the instruction that runs. Raises `SaveRefused`."""
        held = self._machines.get(machine)
        if held is not None:
            with contextlib.suppress(FellAsleep):
                await held.sync()

    async def complete(self, machine: str, code: str, cursor: int) -> Completion:
        """What could follow at a cursor, once it is awake; nothing while an instruction runs. Raises as `wake` does."""
        await self.wake(machine)
        held = self._machines.get(machine)
        with contextlib.suppress(FellAsleep, SandboxError):
            if held is not None:
                return await held.complete(code, cursor)
        return Completion((), cursor, cursor)

    async def crash(self, machine: str) -> bool:
        """Kill its process as an accident would, so that it is recovered; False if it is not awake."""
        held = self._machines.get(machine)
        try:
            return held is not None and await held.crash()
        except SandboxError:  # it had died already
            return False

    async def export(self, machine: str, memory_bytes: int, snapshots: list[Snapshot], into: Path) -> Exported:
        """Write files and variables of the first of a parked machine's snapshots that still starts to the file `into`.

        It stays parked. Raises `CannotWake` if this host cannot start anything now.
        """
        return await export(self._services, machine, memory_bytes, snapshots, into)

    def change_settings(self, machine: str) -> None:
        """Its settings or tags were changed in the ledger."""
        held = self._machines.get(machine)
        if held is not None:
            held.change_settings()

    def memory_bytes(self, machine: str) -> int:
        """What its sandbox uses now; 0 if it has none."""
        held = self._machines.get(machine)
        return 0 if held is None else held.memory_bytes

    async def discard(self, machine: str) -> None:
        """It was deleted: end its process, destroy its key and forget its images."""
        task = self._tasks.get(machine)
        if task is not None:
            held = self._machines[machine]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await held.dismiss()
        try:
            await self._services.snapshotter.destroy_key(machine)
        except SnapshotterError as error:
            # The ledger remembers that it is to be destroyed, before anything else of the machine's is deleted.
            log.warning("A key could not be destroyed yet", action="destroy_key", machine=machine, error=str(error))
        await self._images.drop(machine)

    async def derive(
        self, machine: str, source: Snapshot, keys: Mapping[str, str], tags: dict[str, str] | None = None
    ) -> dict[str, Stored]:
        """Store a machine's snapshot once more for each of the new machines that `keys` name, as their generation 0.

        What it holds is not copied, neither in the store nor, if its image is there, on the local disk. Raises
        `SaveRefused`; what is there of them by then is for `withdraw`.
        """
        fields: dict[str, Any] = {
            "generation": 0,
            "line": 0,
            "lines": [],
            "parent": None,
            "epoch": 0,
            "base": True,
            "next_seq": 0,
        }
        if tags is not None:
            fields["tags"] = tags
        try:
            copies = await self._services.snapshotter.derive(source.manifest_key, source.manifest_sha256, keys, fields)
        except SnapshotterError as error:
            raise SaveRefused(f"The snapshot could not be copied: {error}") from error
        await self._images.share(machine, source.generation, keys)
        return copies

    async def withdraw(self, machine: str, key: str) -> None:
        """Take back what `derive` has stored, since there will be no such machine: its key first, then the manifest."""
        await self.discard(machine)
        try:
            await self._services.snapshotter.delete(key)
        except SnapshotterError as error:
            # Nobody can read it any more, and the next start deletes what no row names.
            log.warning("A manifest could not be deleted yet", action="withdraw", machine=machine, error=str(error))

    def phase(self, machine: str) -> Phase | None:
        """Whether it is awake or waking here; None if it is not held."""
        held = self._machines.get(machine)
        return None if held is None else held.phase

    def keys_in_use(self) -> set[str]:
        """Keys of objects that wakes read, or awake machines build on: not to be deleted now."""
        return {key for held in self._machines.values() for key in held.keys_in_use}

    def _held(self, name: str, *, recovering: bool = False, survivor: Survivor | None = None) -> Machine:
        held = self._machines.get(name)
        if held is None:
            held = self._machines[name] = Machine(name, self._services, recovering=recovering, survivor=survivor)
            task = asyncio.get_running_loop().create_task(held.run(), name=f"machine:{name}")
            self._tasks[name] = task
            task.add_done_callback(lambda ended: self._ended(name, ended))
        return held

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        held = self._machines.pop(name)
        del self._tasks[name]
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("A machine's task ended in an error", action="machine", machine=name, error=repr(error))
        if held.wanted and not self._draining:
            successor = self._held(name)
            successor.unwanted.update(held.unwanted)
            successor.deliver(None)

    async def _place(self) -> None:
        """Take care of machines of our session that have no task, and of those that wait for one."""
        known = set(self._machines)
        for name in await self._ledger.mine():
            # One that had a task when we asked may have been released since: then there is nothing to recover.
            if name not in known:
                self._held(name, recovering=True)
        for name in await self._ledger.waiting():
            self.deliver(name, None)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._config.sweep_seconds)
            try:
                await self._place()
                await self._admission.relieve()
            except Exception:
                log.exception("A sweep failed; the next one follows", action="sweep")

    def _measure(self) -> None:
        phases = [held.phase for held in self._machines.values()]
        self._metrics.awake_machines.set(phases.count("awake"))
        self._metrics.waking_machines.set(phases.count("waking"))
        for pool, size in self._beginnings.sizes.items():
            self._metrics.pool_sandboxes.labels(pool).set(size)
        self._metrics.sandbox_memory_bytes.set(self._used_bytes())

    def _used_bytes(self) -> int:
        return self._beginnings.memory_bytes + sum(held.memory_bytes for held in self._machines.values())

    async def _free_some(self) -> bool:
        """Give up what waits for a new machine, then let the longest idle sleep that will; False if there is none."""
        if await self._beginnings.give_up():
            return True
        idle = [(since, name) for name, held in self._machines.items() if (since := held.idle_since) is not None]
        for _, name in sorted(idle):
            held = self._machines.get(name)
            if held is None:
                continue
            try:
                if await held.sleep():
                    return True
            except (SaveRefused, WorkerError, FellAsleep):
                continue
        return False
