"""A host of sandboxes that are none, for tests of everything around it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
from collections.abc import Collection, Sequence
from pathlib import Path

from torpor_worker.fake_image import FakeImage
from torpor_worker.fake_sandbox import FakeSandbox
from torpor_worker.files import FileRefused
from torpor_worker.sandbox import (
    Adopted,
    GuestState,
    Limits,
    RuntimeUnavailable,
    Sandbox,
    SandboxDied,
    SandboxError,
)
from torpor_worker.survivors import Survivor


class FakeSandboxHost:
    """Implements `SandboxHost`. Its attributes say what goes wrong next, and what happened."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.frames: list[tuple[int, bool]] = []
        """Instructions sent: seq, and whether as a replay."""
        self.commands: list[int] = []
        """Commands sent, by seq."""
        self.is_old = False
        """Its guests know of no commands."""
        self.sandbox_bytes = 32 * 1024 * 1024
        self.open = asyncio.Event()
        """While it is not set, sandboxes take for ever to start."""
        self.open.set()
        self.start_failures = 0
        self.restore_failures = 0
        self.restores_that_hang = 0
        self.rehearsals = 0
        self.failing_rehearsal = 0
        """Which of them is to fail, counted from 1."""
        self.checkpoint_failures = 0
        self.adopt_failures = 0
        self.checkpoint_deaths = 0
        self.checkpoints_hang = False
        self.may_checkpoint = asyncio.Event()
        """While it is not set, checkpoints that have begun do not end."""
        self.may_checkpoint.set()
        self.checkpointing = asyncio.Event()
        """Set by every checkpoint that begins."""
        self.may_answer = asyncio.Event()
        """While it is not set, pings are not answered."""
        self.may_answer.set()
        self.pinged = asyncio.Event()
        """Set by every ping."""
        self.poisoned: set[str] = set()
        """Images with a variable of such a name die as soon as they are restored."""
        self.version = "fake"
        self.series = "fake"
        """Of new sandboxes."""
        self.knows_files = True
        self.apply_deaths = 0
        """So many changes of files end their process when they are made."""
        self.apply_refusal: FileRefused | None = None
        """Why the next change of files is refused when it is made."""
        self.may_apply = asyncio.Event()
        """While it is not set, changes of files that are to be made are not."""
        self.may_apply.set()
        self.prepared = asyncio.Event()
        """Set by every change that is about to be prepared."""
        self.may_prepare = asyncio.Event()
        """While it is not set, none is."""
        self.may_prepare.set()
        self.missing: set[str] = set()
        """Runtime series that cannot be had."""
        self.started: list[str] = []
        """Machines whose sandboxes began with an empty interpreter."""
        self.restored = 0
        self.spares = 0
        self.spares_used = 0
        self.spare_size_bytes = 12 * 1024 * 1024
        self.calls = 0
        self._numbers = itertools.count()

    async def start(
        self, machine: str, limits: Limits, preload: Sequence[str] = (), series: str | None = None
    ) -> Sandbox:
        """See `SandboxHost`."""
        self.started.append(machine)
        await self.open.wait()
        if self.start_failures:
            self.start_failures -= 1
            raise SandboxError("runsc does not start")
        return self._add(machine, FakeImage(preloaded=tuple(preload)), limits, series)

    def runtime_facts(self, series: str) -> dict[str, str]:
        """See `SandboxHost`."""
        return {"series": series}

    async def have(self, series: str) -> None:
        """See `SandboxHost`."""
        if series in self.missing:
            raise RuntimeUnavailable(f"Runtime {series} is neither here nor in the store.")

    async def restore(
        self, machine: str, image: Path, limits: Limits, series: str | None = None, *, waited_for: bool = True
    ) -> tuple[Sandbox, GuestState]:
        """See `SandboxHost`."""
        if waited_for and self.spares:
            self.spares -= 1
            self.spares_used += 1
        await self.open.wait()
        if self.restores_that_hang:
            self.restores_that_hang -= 1
            await asyncio.Event().wait()
        if self.restore_failures:
            self.restore_failures -= 1
            raise SandboxError("runsc does not restore")
        loaded = self._read(image)
        self.restored += 1
        sandbox = self._add(machine, loaded, limits, series)
        if self.poisoned & loaded.names.keys():
            with contextlib.suppress(SandboxDied):
                sandbox.die("killed by signal 11 (SIGSEGV)")
        return sandbox, GuestState(loaded.last_position, loaded.running, loaded.background or bool(loaded.commands))

    @staticmethod
    def _read(image: Path) -> FakeImage:
        loaded: FakeImage = pickle.loads((image / "state").read_bytes())  # noqa: S301 — written by ourselves
        return loaded

    def _add(self, machine: str, image: FakeImage, limits: Limits, series: str | None = None) -> FakeSandbox:
        name = f"{machine}-{next(self._numbers)}"
        sandbox = self.sandboxes[name] = FakeSandbox(self, name, image, machine, limits, series or self.series)
        return sandbox

    async def preparing(self) -> None:
        """A change is about to be prepared."""
        self.prepared.set()
        await self.may_prepare.wait()

    @property
    def spare_bytes(self) -> int:
        """See `SandboxHost`."""
        return self.spares * self.spare_size_bytes

    async def add_spare(self) -> None:
        """See `SandboxHost`."""
        self.spares += 1

    async def drop_spare(self) -> bool:
        """See `SandboxHost`."""
        dropped = self.spares > 0
        self.spares -= dropped
        return dropped

    def forsake(self) -> None:
        """The worker was killed: its sandboxes are left over."""
        for name, sandbox in list(self.sandboxes.items()):
            self.sandboxes[name] = sandbox.outlive()

    async def survivors(self) -> list[Survivor]:
        """See `SandboxHost`."""
        return [Survivor(name, each.facts) for name, each in self.sandboxes.items() if each.facts is not None]

    async def adopt(self, survivor: Survivor, limits: Limits) -> Adopted:
        """See `SandboxHost`."""
        sandbox = self.sandboxes[survivor.id]
        if self.adopt_failures:
            self.adopt_failures -= 1
            await sandbox.destroy()
            raise SandboxError("the guest does not answer")
        was_frozen = sandbox.paused
        if was_frozen:
            await sandbox.resume()
        sandbox.limits = limits
        return Adopted(sandbox, await sandbox.ping(), was_frozen)

    async def dismiss(self, survivor: Survivor) -> None:
        """See `SandboxHost`."""
        await self.sandboxes[survivor.id].destroy()

    async def remove_leftovers(self, keep: Collection[str] = ()) -> int:
        """See `SandboxHost`."""
        leftovers = [sandbox for name, sandbox in self.sandboxes.items() if name not in keep]
        for sandbox in leftovers:
            await sandbox.destroy()
        return len(leftovers)

    async def close(self) -> None:
        """See `SandboxHost`."""
        for sandbox in list(self.sandboxes.values()):
            await sandbox.destroy()
