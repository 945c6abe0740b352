"""Packages that are asked for inside of machines: fetched on this host, and handed in as a change of files.

The change is an entry of the log, so what was handed in once is handed in again by a recovery, at the same moment and
though the index be away; what runs again asks for it under the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from torpor_worker.bodies import Body, StorageFull
from torpor_worker.errors import WorkerError
from torpor_worker.files import Change, FileRefused
from torpor_worker.ledger import Fenced, Hold, Ledger
from torpor_worker.packages.asked import PackageRefused, Wanted
from torpor_worker.packages.fetching import OFF, Packages
from torpor_worker.sandbox import PackagesWanted, Sandbox, SandboxError

log = structlog.get_logger(__name__)

FOLDER = ".cache/torpor"
"""In the user's home, as the guest knows too."""
AT_ONCE = 8
"""Of one machine's asks; its guest makes no more."""
NOT_THEN = "These packages were not handed in when this ran first."


def change_of(ask: PackagesWanted) -> Change:
    """What hands in what was asked for. The log knows it by its text."""
    return Change("write", f"{FOLDER}/{ask.name}.tar", mode=0o644)


class Files(Protocol):
    """How files come into machines; see `MachineFiles`."""

    def stored(self, pieces: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Body]:
        """Store what a change is to write, before it is made."""
        ...

    async def change(self, machine: str, change: Change, body: Body | None) -> None:
        """Change something; when this returns it is in the machine, and in its log."""
        ...


@dataclass(slots=True)
class _Machine:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    asking: dict[str, tuple[Sandbox, int]] = field(default_factory=dict)
    """By name, where to say that it is refused: an ask outlives its process."""


class HandingIn:
    """All asks of a worker's machines."""

    def __init__(self, ledger: Ledger, files: Files | None, packages: Packages | None) -> None:
        """Without `files` or `packages` all are refused."""
        self._ledger = ledger
        self._files = files
        self._packages = packages
        self._machines: dict[str, _Machine] = {}

    def wanted(self, hold: Hold, sandbox: Sandbox, ask: PackagesWanted) -> None:
        """Something that runs, and has no result, asks; it is answered by and by."""
        machine = self._machines.setdefault(hold.machine, _Machine())
        if ask.name not in machine.asks and len(machine.asks) >= AT_ONCE:
            return
        machine.asking[ask.name] = sandbox, ask.number
        if ask.name not in machine.asks:
            task = asyncio.get_running_loop().create_task(
                self._hand_in(machine, hold, ask), name=f"packages:{hold.machine}"
            )
            machine.asks[ask.name] = task
            task.add_done_callback(lambda _: self._ended(hold.machine, ask.name))

    async def wanted_again(self, hold: Hold, sandbox: Sandbox, ask: PackagesWanted) -> bool:
        """Something that has its result and runs again asks: whether the log has what it was given then."""
        is_known = await self._ledger.knows_change(hold, change_of(ask).text())
        await _say(sandbox, ask.number, None if is_known else NOT_THEN)
        return is_known

    async def close(self) -> None:
        """Answer nothing any more: a successor is asked again."""
        tasks = [task for machine in self._machines.values() for task in machine.asks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, machine: str, name: str) -> None:
        known = self._machines[machine]
        del known.asks[name], known.asking[name]
        if not known.asks:
            del self._machines[machine]

    async def _hand_in(self, machine: _Machine, hold: Hold, ask: PackagesWanted) -> None:
        refused: str | None = None
        try:
            async with machine.turn:
                if not await self._ledger.knows_change(hold, change_of(ask).text()):
                    await self._fetch(hold.machine, ask)
        except (PackageRefused, FileRefused, StorageFull) as error:
            refused = str(error)
        except (Fenced, WorkerError):
            return  # whoever has the machine next is asked again
        except Exception:
            log.exception("Packages could not be handed in", action="packages", machine=hold.machine)
            refused = "The server failed to hand in packages; its log says why."
        await _say(*machine.asking[ask.name], refused)

    async def _fetch(self, machine: str, ask: PackagesWanted) -> None:
        if self._packages is None or self._files is None:
            raise PackageRefused(OFF)
        wheels = await self._packages.fetch(Wanted.of_fields(ask.request))
        log.info(
            "Packages are handed in", action="packages", machine=machine, wheels=[each.filename for each in wheels]
        )
        async with self._files.stored(self._packages.archive(wheels)) as body:
            await self._files.change(machine, change_of(ask), body)


async def _say(sandbox: Sandbox, number: int, refused: str | None) -> None:
    with contextlib.suppress(SandboxError):
        await sandbox.answer_packages(number, refused=refused)
