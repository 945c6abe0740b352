"""How a machine comes to rest before its history is changed: nothing unfinished, and all that it did in its head."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from torpor_api.errors import MachineBusy
from torpor_api.ledger.rollbacks import Unsettled
from torpor_api.services import Services
from torpor_worker.errors import MachineGone

T = TypeVar("T")

TRIES = 20
"""How often a machine is put to rest again that others called in between."""
PAUSE_SECONDS = 0.05
INTERRUPT_SECONDS = 60.0
"""How long all that is unfinished may take to end when it is interrupted."""


async def end_instructions(services: Services, account: str, name: str) -> None:
    """Interrupt what runs, then what waits, until nothing is unfinished. Raises `MachineBusy`, `MachineNotFound`."""
    ledger = services.ledger
    try:
        async with asyncio.timeout(INTERRUPT_SECONDS):
            with ledger.changes.watch(name) as watch:
                while (await ledger.machine(account, name)).has_pending_instruction:
                    await services.machines.interrupt(name, None)
                    await watch.wait(PAUSE_SECONDS)
    except TimeoutError:
        raise MachineBusy("What runs on the machine did not end when it was interrupted.") from None


async def when_asleep(services: Services, name: str, work: Callable[[], Awaitable[T]]) -> T:
    """Do `work`; as often as it finds the machine unsettled, save it and let it fall asleep first.

    Raises what `work` raises, `MachineBusy` if others call the machine again and again, and `WorkerError`.
    """
    for _ in range(TRIES):
        try:
            return await work()
        except Unsettled:
            with suppress(MachineGone):  # parked or deleted meanwhile, which `work` finds out
                await services.machines.wake(name)
                if not await services.machines.sleep(name):
                    await asyncio.sleep(PAUSE_SECONDS)
    raise MachineBusy("The machine does not come to rest: others use it.")
