"""What is made in advance: templates, sandboxes that wait for a new machine, and spare ones to restore into."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from torpor_worker.admission import LEAST_BYTES, Admission
from torpor_worker.config import WorkerConfig
from torpor_worker.demand import Demand
from torpor_worker.ledger import Ledger, StoredTemplate
from torpor_worker.sandbox import Limits, Sandbox, SandboxError, SandboxHost
from torpor_worker.snapshots import Parent, Snapshotter, SnapshotterError
from torpor_worker.templates import MAKING_LIMITS, MODULES, PYTHON, Templates
from torpor_worker.warm_pool import WarmPool

log = structlog.get_logger(__name__)

FAILURES = 3
"""A template that failed so often, to be made or to be restored, is not tried again before the next start."""
RESTORE_SECONDS = 30.0
"""How long a template's restore may take before the machine is started without it."""
LOOK_SECONDS = 5.0
"""How often it is looked whether there is memory for the pool again, or one in it died."""
AFTER_TAKING_SECONDS = 0.3
"""So long after one was taken the pool is left alone: whoever took it has the processors."""
STORE_AGAIN_SECONDS = 60.0
"""How long to wait after the store has refused a template."""
BUSY_SECONDS = 0.05
"""How long to wait while machines are being woken, before looking again."""
ROOM_BYTES = {PYTHON: 2 * LEAST_BYTES, "data": 12 * LEAST_BYTES}
"""What making a template takes, about."""
LEAST_WARM = {PYTHON: 2, "data": 0}
"""How many wait for a new machine when nobody has asked for one for long."""
LEAST_SPARE = 2
SPARE_BYTES = 12 * 1024 * 1024
"""What a spare sandbox takes, about."""


class Beginnings:
    """Hands out fresh processes. In the background, one thing at a time, it makes templates and fills the pools.

    `python` is made at once, another template when a machine first asks for it. Until one is there, machines start
    without it: they are the same, only slower to start, or to import. How many wait follows from `Demand`, as long as
    a quarter of the memory stays free; when memory is short, what waits is the first to go.
    """

    def __init__(
        self,
        ledger: Ledger,
        host: SandboxHost,
        snapshotter: Snapshotter,
        admission: Admission,
        config: WorkerConfig,
        templates: Templates | None,
    ) -> None:
        """Without templates every machine starts from nothing."""
        self._ledger = ledger
        self._host = host
        self._snapshotter = snapshotter
        self._admission = admission
        self._templates = templates
        most = config.warm_machines if templates is not None else 0
        self._pools = {name: WarmPool(Demand(LEAST_WARM[name], most)) for name in MODULES}
        self._spare_demand = Demand(LEAST_SPARE, config.spare_sandboxes)
        self._wanted = {PYTHON}
        self._failures = dict.fromkeys(MODULES, 0)
        self._stored: dict[str, Parent] = {}
        self._store_not_before = 0.0
        self._something_to_do = asyncio.Event()
        self._taken_at = float("-inf")
        self._retry_seconds = config.retry_seconds
        self._task: asyncio.Task[None] | None = None

    @property
    def memory_bytes(self) -> int:
        """What waits, or is being made, uses."""
        waiting = sum(pool.memory_bytes for pool in self._pools.values()) + self._host.spare_bytes
        return waiting + (0 if self._templates is None else self._templates.memory_bytes)

    @property
    def sizes(self) -> dict[str, int]:
        """How many sandboxes wait, by template for new machines, and as `spare` for what is restored."""
        return {**{name: len(pool) for name, pool in self._pools.items()}, "spare": self._host.spares}

    def image_bytes(self, template: str | None) -> int:
        """What a machine of this template takes at least, as far as it is known."""
        return 0 if self._templates is None or template is None else self._templates.image_bytes(template)

    def stored(self, template: str | None) -> Parent | None:
        """What a machine's first snapshot is like, so that only what differs is stored; None if nothing is known."""
        return None if template is None else self._stored.get(template)

    async def start(self) -> None:
        """Look for templates made earlier, and begin to work in the background."""
        if self._templates is not None:
            await self._templates.prepare()
            self._task = asyncio.get_running_loop().create_task(self._work(self._templates), name="templates")

    async def close(self) -> None:
        """Stop the work, and remove what waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        while await self.give_up():
            pass

    async def give_up(self) -> bool:
        """Remove one sandbox that waits, the largest first, because memory is short; False if there is none."""
        for name in ("data", PYTHON):
            if await self._pools[name].drop():
                return True
        return await self._host.drop_spare()

    def restoring(self) -> None:
        """A machine is to be restored now: the more of them at once, the more spare sandboxes wait from now on."""
        self._spare_demand.ask(self._taken())

    def _taken(self) -> float:
        self._taken_at = asyncio.get_running_loop().time()
        self._something_to_do.set()
        return self._taken_at

    async def process(self, machine: str, template: str | None, limits: Limits) -> Sandbox:
        """A fresh process for a machine. Raises `SandboxError`."""
        if self._templates is None or template is None:
            return await self._host.start(machine, limits)
        if template in MODULES:
            self._wanted.add(template)
            self._pools[template].demand.ask(self._taken())
        for name in dict.fromkeys((template, PYTHON)):
            if name in self._pools and (sandbox := await self._pools[name].take(machine, limits)) is not None:
                return sandbox
            if name in self._templates:
                return await self._restore(self._templates, name, machine, limits)
        return await self._host.start(machine, limits)

    async def _restore(self, templates: Templates, name: str, machine: str, limits: Limits) -> Sandbox:
        self.restoring()
        try:
            async with asyncio.timeout(RESTORE_SECONDS):
                return await templates.restore(name, machine, limits)
        except (SandboxError, TimeoutError) as error:
            # If the host cannot even start an empty sandbox, the template is not to blame.
            sandbox = await self._host.start(machine, limits)
            await self._throw_away(templates, name, error)
            return sandbox

    async def _throw_away(self, templates: Templates, name: str, error: Exception) -> None:
        self._failed(name, error)
        self._stored.pop(name, None)
        await templates.discard(name)
        self._something_to_do.set()

    def _failed(self, name: str, error: Exception) -> None:
        self._failures[name] += 1
        log.warning("A template failed", action="template", template=name, error=str(error) or type(error).__name__)

    async def _work(self, templates: Templates) -> None:
        while True:
            self._something_to_do.clear()
            try:
                await self._make_missing(templates)
                for name in (PYTHON, "data"):
                    await self._fill(self._pools[name], name, templates)
                await self._add_spares()
                await self._store(templates)
            except Exception:
                log.exception("The work on templates failed; it is tried again", action="template")
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._something_to_do.wait()
            except TimeoutError:
                continue

    async def _make_missing(self, templates: Templates) -> None:
        for name in sorted(self._wanted, reverse=True):  # `python` before `data`
            while name not in templates and self._failures[name] < FAILURES:
                await self._others_first()
                if not self._admission.has_spare(ROOM_BYTES[name]):
                    break
                try:
                    await templates.make(name)
                except (SandboxError, OSError) as error:
                    self._failed(name, error)
                    await asyncio.sleep(self._retry_seconds)

    async def _fill(self, pool: WarmPool, name: str, templates: Templates) -> None:
        await pool.remove_dead()
        while len(pool) > pool.demand.wanted(self._now()):
            await pool.drop()
        while name in templates and len(pool) < pool.demand.wanted(self._now()):
            await self._others_first()
            if not self._admission.has_spare(max(LEAST_BYTES, templates.image_bytes(name))):
                return
            try:
                pool.add(await templates.restore_ahead(name))
            except SandboxError as error:
                await (await self._host.start("warm", MAKING_LIMITS)).destroy()
                await self._throw_away(templates, name, error)
                return

    async def _add_spares(self) -> None:
        while self._host.spares > self._spare_demand.wanted(self._now()):
            await self._host.drop_spare()
        while self._host.spares < self._spare_demand.wanted(self._now()):
            await self._others_first()
            if not self._admission.has_spare(SPARE_BYTES):
                return
            await self._host.add_spare()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _store(self, templates: Templates) -> None:
        """Put templates into the store, once each, so that machines' snapshots need not have their pages again."""
        now = asyncio.get_running_loop().time()
        if now < self._store_not_before:
            return
        for name in MODULES:
            if name not in templates or name in self._stored:
                continue
            await self._others_first()
            image, version = templates.image(name), templates.version(name)
            stored = await self._ledger.stored_template(name, version)
            if stored is None:
                try:
                    stored = await self._put(name, image, version)
                except SnapshotterError as error:
                    # Machines' own saves say so to their users, and are only larger for it.
                    log.warning("A template could not be stored", action="template", template=name, error=str(error))
                    self._store_not_before = now + STORE_AGAIN_SECONDS
                    return
            self._stored[name] = Parent(stored.manifest_key, stored.manifest_sha256, image)

    async def _put(self, name: str, image: Path, version: str) -> StoredTemplate:
        key = await self._ledger.allot_template(name, version)
        # Its key in the key store is its own: nothing of a machine's opens it, and deleting one leaves it whole.
        fields = {"machine": key.split("/")[1], "generation": 0, "template": name, "version": version}
        put = await self._snapshotter.store(image, key, fields)
        stored = StoredTemplate(put.manifest_key, put.manifest_sha256)
        await self._ledger.commit_template(name, stored, put.stored_bytes)
        return stored

    async def _others_first(self) -> None:
        """Wait until no machine is being woken."""
        loop = asyncio.get_running_loop()
        while True:
            wait_seconds = BUSY_SECONDS if self._admission.busy else self._taken_at + AFTER_TAKING_SECONDS - loop.time()
            if wait_seconds <= 0:
                return
            await asyncio.sleep(wait_seconds)
