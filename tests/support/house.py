"""A worker with everything around it in memory, whose parts a test can break."""

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torpor_worker.bodies import Bodies
from torpor_worker.config import WorkerConfig
from torpor_worker.fake_host import FakeSandboxHost
from torpor_worker.ledger import Entry, InstructionResult, Ledger
from torpor_worker.local_images import LocalImages
from torpor_worker.memory_ledger import MachineMemory, MemoryLedger
from torpor_worker.memory_snapshotter import MemorySnapshotter
from torpor_worker.packages.fetching import Packages
from torpor_worker.stdin import Stdin
from torpor_worker.templates import Templates
from torpor_worker.worker import Worker

PATIENCE_SECONDS = 30

QUICK = WorkerConfig(
    quiet_save_seconds=3600,
    save_interval_seconds=3600,
    look_seconds=3600,
    sweep_seconds=3600,
    admission_seconds=PATIENCE_SECONDS,
    output_batch_seconds=0.001,
    interrupt_again_seconds=0.01,
    kill_seconds=0.03,
    remove_seconds=0.06,
    settle_seconds=0.01,
    retry_seconds=0.001,
    retry_limit_seconds=0.01,
)
"""Nothing happens by itself but what a test asks for; what follows, follows at once."""


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition (which may be asynchronous), with a limit that only a bug reaches."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            held = condition()
            if inspect.isawaitable(held):
                held = await held
            if held:
                return
            await asyncio.sleep(0.001)


class House:
    """One host: a ledger, a store and a disk that outlive the workers on it."""

    def __init__(self, folder: Path, ledger: MemoryLedger | None = None) -> None:
        self.ledger = ledger or MemoryLedger()
        self.host = FakeSandboxHost()
        self.snapshotter = MemorySnapshotter()
        self.config = QUICK
        self._folder = folder
        self._images = 0
        self.images = LocalImages(folder / "images", 1 << 30)
        self.bodies = Bodies(folder / "bodies")
        self.templates: Templates | None = None
        self.packages: Packages | None = None
        self.workers: list[Worker] = []

    @property
    def worker(self) -> Worker:
        """The worker of now."""
        return self.workers[-1]

    def set(self, **changes: Any) -> None:
        """Change the settings of workers that start from now on."""
        self.config = dataclasses.replace(self.config, **changes)

    async def start(self, ledger: Ledger | None = None) -> Worker:
        """Start a worker on what is there."""
        worker = Worker(
            ledger or self.ledger,
            self.host,
            self.snapshotter,
            self.images,
            self.config,
            self.templates,
            bodies=self.bodies,
            packages=self.packages,
        )
        self.workers.append(worker)
        await worker.start()
        return worker

    async def crash(self) -> None:
        """SIGKILL of the worker, as far as the ledger sees it: nothing more is written, sandboxes are left over."""
        await self._kill(self.worker)
        await self.host.close()

    async def die(self) -> None:
        """SIGKILL of the worker alone: its sandboxes live on."""
        for task in self.worker._tasks.values():
            task.cancel()
        self.host.forsake()  # before any of them has heard of it
        await self._kill(self.worker)

    async def restart(self) -> None:
        """An orderly stop and the next start."""
        await self.worker.drain(PATIENCE_SECONDS)
        await self.start()

    def forget_local_images(self) -> None:
        """The local disk is empty."""
        self._images += 1
        self.images = LocalImages(self._folder / f"images{self._images}", 1 << 30)

    def machine(self, name: str = "m") -> MachineMemory:
        """What the ledger knows of a machine."""
        return self.ledger.machines[name]

    def send(
        self, code: str, name: str = "m", *, timeout_seconds: float = PATIENCE_SECONDS, stdin: Stdin | None = None
    ) -> int:
        """Accept and deliver an instruction as the API does; its seq."""
        entry = self.ledger.accept(name, code, timeout_seconds=timeout_seconds, stdin=stdin)
        self.worker.deliver(name, entry)
        assert entry.seq is not None
        return entry.seq

    async def result(self, seq: int, name: str = "m") -> InstructionResult:
        """Wait for a result."""
        await until(lambda: self.entry(seq, name).result is not None)
        result = self.entry(seq, name).result
        assert result is not None
        return result

    async def run(self, code: str, name: str = "m", *, timeout_seconds: float = PATIENCE_SECONDS) -> InstructionResult:
        """Run an instruction and wait for its result."""
        return await self.result(self.send(code, name, timeout_seconds=timeout_seconds), name)

    async def value(self, code: str, name: str = "m") -> str | None:
        """The value of an instruction that must not fail."""
        result = await self.run(code, name)
        assert result.error is None, result.error
        return result.value

    def entry(self, seq: int, name: str = "m") -> Entry:
        """An instruction as it is in the log."""
        return self.machine(name).instruction(seq)

    def output(self, seq: int, name: str = "m") -> str:
        """What an instruction's newest attempt has printed."""
        records = self.machine(name).output.get((seq, self.entry(seq, name).attempt), [])
        return b"".join(record.data for record in records).decode()

    def events(self, name: str = "m") -> list[str]:
        """The machine's history of events."""
        return [action for action, _ in self.machine(name).events]

    async def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            await self._kill(worker)
        await self.host.close()

    @staticmethod
    async def _kill(worker: Worker) -> None:
        # Cut short before anything can be saved, however slow this host is.
        stopping = asyncio.create_task(worker.drain(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait([stopping])
