"""Packages that are asked for inside of machines: fetched on this host, and handed in as a change of files.

The change is an entry of the log, so what was handed in once is handed in again by a recovery, at the same moment and
though the index be away; what runs again asks for it under the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from torpor_worker.answers import Answers
from torpor_worker.bodies import Body, StorageFull
from torpor_worker.errors import WorkerError
from torpor_worker.files import Change, FileRefused
from torpor_worker.ledger import Fenced, Hold, Ledger
from torpor_worker.packages.asked import PackageRefused, Wanted
from torpor_worker.packages.fetching import OFF, Packages
from torpor_worker.sandbox import PackagesWanted, Sandbox

log = structlog.get_logger(__name__)

FOLDER = ".cache/torpor"
"""In the user's home, as the guest knows too."""
AT_ONCE = 8
"""Of one machine's asks; its guest makes no more."""
TOO_MANY = "More packages are asked for at once than are handed in; try again."
NOT_THEN = "These packages were not handed in when this ran first."


def change_of(ask: PackagesWanted) -> Change:
    """What hands in what was asked for. The log knows it by its text."""
    return Change("write", f"{FOLDER}/{ask.name}.tar", mode=0o644)


class Files(Protocol):
    """How files come into machines; see `MachineFiles`."""

    def stored(self, account: str, pieces: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Body]:
        """Store what a change is to write, before it is made."""
        ...

    async def change(self, machine: str, change: Change, body: Body | None) -> None:
        """Change something; when this returns it is in the machine, and in its log."""
        ...


@dataclass(slots=True)
class _Machine:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    asking: dict[str, tuple[Hold, Sandbox, int]] = field(default_factory=dict)
    """By name, who asked last, and where to answer: an ask outlives its process, and a hold."""


class HandingIn:
    """All asks of a worker's machines."""

    def __init__(self, ledger: Ledger, files: Files | None, packages: Packages | None) -> None:
        """Without `files` or `packages` all are refused."""
        self._ledger = ledger
        self._files = files
        self._packages = packages
        self._machines: dict[str, _Machine] = {}
        self._answers = Answers()
        self._closed = False

    def wanted(self, hold: Hold, sandbox: Sandbox, ask: PackagesWanted) -> None:
        """Something that runs, and has no result, asks; it is answered by and by."""
        if self._closed:
            return
        machine = self._machines.setdefault(hold.machine, _Machine())
        if ask.name not in machine.asks and len(machine.asks) >= AT_ONCE:
            self._answers.add(sandbox, ask.number, TOO_MANY)
            return
        machine.asking[ask.name] = hold, sandbox, ask.number
        if ask.name not in machine.asks:
            loop = asyncio.get_running_loop()
            machine.asks[ask.name] = loop.create_task(self._hand_in(machine, ask), name=f"packages:{hold.machine}")

    async def wanted_again(self, hold: Hold, sandbox: Sandbox, ask: PackagesWanted) -> bool:
        """Something that has its result and runs again asks: whether the log has what it was given then."""
        is_known = await self._ledger.knows_change(hold, change_of(ask).text())
        self._answers.add(sandbox, ask.number, None if is_known else NOT_THEN)
        return is_known

    async def close(self) -> None:
        """Answer nothing any more: a successor is asked again."""
        self._closed = True
        tasks = [task for machine in self._machines.values() for task in machine.asks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._answers.close()

    async def _hand_in(self, machine: _Machine, ask: PackagesWanted) -> None:
        refused: str | None = None
        is_known = False
        name = machine.asking[ask.name][0].machine
        try:
            async with machine.turn:
                if not await self._is_known(machine, ask):
                    await self._fetch(machine.asking[ask.name][0], ask)
            is_known = True
        except (PackageRefused, FileRefused, StorageFull) as error:
            refused = str(error)
        except (Fenced, WorkerError):
            pass  # whoever has the machine next is asked again
        except Exception:
            log.exception("Packages could not be handed in", action="packages", machine=name)
            refused = "The server failed to hand in packages; its log says why."
        finally:  # before it is answered: who asks from now on asks anew
            _, sandbox, number = self._ended(name, machine, ask.name)
        if is_known or refused is not None:
            self._answers.add(sandbox, number, refused)

    async def _is_known(self, machine: _Machine, ask: PackagesWanted) -> bool:
        """Whether it was handed in before. Raises `Fenced` if nobody asks any more who holds the machine."""
        while True:
            hold, _, _ = machine.asking[ask.name]
            try:
                return await self._ledger.knows_change(hold, change_of(ask).text())
            except Fenced:
                if machine.asking[ask.name][0] is hold:
                    raise

    def _ended(self, name: str, machine: _Machine, ask: str) -> tuple[Hold, Sandbox, int]:
        del machine.asks[ask]
        if not machine.asks:
            del self._machines[name]
        return machine.asking.pop(ask)

    async def _fetch(self, hold: Hold, ask: PackagesWanted) -> None:
        if self._packages is None or self._files is None:
            raise PackageRefused(OFF)
        wheels = await self._packages.fetch(hold.account, Wanted.of_fields(ask.request))
        log.info(
            "Packages are handed in", action="packages", machine=hold.machine, wheels=[each.filename for each in wheels]
        )
        async with self._files.stored(hold.account, self._packages.archive(wheels)) as body:
            await self._files.change(hold.machine, change_of(ask), body)
