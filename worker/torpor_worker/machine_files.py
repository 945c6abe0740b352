"""Work on the files of machines: they are woken for it, and stay awake until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from torpor_worker.bodies import Bodies, Body
from torpor_worker.changing import feed
from torpor_worker.errors import Draining, FellAsleep
from torpor_worker.files import Change, FileRefused, FileTransfer, FileWork, TransferLost
from torpor_worker.ledger import Fenced, Ledger
from torpor_worker.machine import Machine
from torpor_worker.process import Process
from torpor_worker.sandbox import SandboxError

READS_LIMIT: Final = 128
CHANGES_LIMIT: Final = 64
"""At once, in all machines: each takes some hundred kilobytes of this process's memory. Others wait.

Who waits for a machine has none of these: the others' machines do not wait for it.
"""
TRIES: Final = 3
"""Of a change whose machine's process ends in the middle of it."""
AGAIN_SECONDS: Final = 0.1


class MachineFiles:
    """All work on files in one worker's machines."""

    def __init__(
        self, held: Callable[[str], Machine], ledger: Ledger, bodies: Bodies, is_draining: Callable[[], bool]
    ) -> None:
        self._held = held
        self._ledger = ledger
        self._bodies = bodies
        self._is_draining = is_draining
        self._read_slots = asyncio.Semaphore(READS_LIMIT)
        self._change_slots = asyncio.Semaphore(CHANGES_LIMIT)

    def stored(
        self, account: str, pieces: AsyncIterator[bytes], size_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Body]:
        """Store what a change is to write, before it is made; see `Bodies.stored`. Raises `StorageFull`."""
        return self._bodies.stored(account, pieces, size_bytes)

    @asynccontextmanager
    async def reading(self, machine: str, work: FileWork) -> AsyncIterator[FileTransfer]:
        """Read something. Raises `FileRefused`, `TransferLost`, and what `Worker.wake` raises."""
        try:
            async with self._in_use(machine) as (held, process), held.read_slots, self._read_slots:
                transfer = await process.attached.sandbox.work_on_files(work)
                try:
                    yield transfer
                finally:
                    await transfer.close()
        except SandboxError as error:
            raise TransferLost(f"The machine's process ended: {error}.") from error

    async def change(self, machine: str, change: Change, body: Body | None) -> None:
        """Change something; when this returns it is in the machine, and in its log.

        Raises `FileRefused`, `TransferLost`, and what `Worker.wake` raises.
        """
        tries = 0
        while True:
            try:
                return await self._change(machine, change, body)
            except FellAsleep:
                await asyncio.sleep(0)
            except (SandboxError, Fenced) as error:
                tries += 1
                if tries == TRIES:
                    raise TransferLost(f"The machine's process ended: {error}.") from error
                await asyncio.sleep(AGAIN_SECONDS * tries)  # until its task has heard of it

    async def _change(self, machine: str, change: Change, body: Body | None) -> None:
        async with self._in_use(machine) as (held, process), held.change_slots, self._change_slots:
            sandbox = process.attached.sandbox
            if body is not None and sandbox.memory_bytes() + body.size_bytes > process.hold.memory_bytes:
                raise FileRefused("disk_full", "The machine's memory, in which its files are, has no room for it.")
            transfer = await sandbox.work_on_files(change)
            try:
                await feed(transfer, self._bodies, None if body is None else body.key)
                entry = await held.log(process, change, body, transfer)
                try:
                    await transfer.ended()
                except SandboxError:
                    if entry is None:
                        raise
                    # It is in the log: the next process is given it.
                except FileRefused as refused:
                    # A half-made change of many files is made as far again; of one file, nothing was changed.
                    is_nothing = change.work == "write" or not refused.half_made
                    if entry is not None and entry.position is not None and is_nothing:
                        await self._ledger.undo_change(process.hold, entry.position)
                    raise
            finally:
                await transfer.close()

    @asynccontextmanager
    async def _in_use(self, machine: str) -> AsyncIterator[tuple[Machine, Process]]:
        while True:
            if self._is_draining():
                raise Draining("The server is stopping.")
            held = self._held(machine)
            using = held.in_use()
            try:
                process = await using.__aenter__()
            except FellAsleep:
                await asyncio.sleep(0)  # until its task has ended
                continue
            break
        try:
            yield held, process
        finally:
            await using.__aexit__(None, None, None)
