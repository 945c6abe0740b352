"""Forks, from a request to new machines: save, store the state under each new machine's key, and then make it known."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import Any

from torpor_api.at_once import each
from torpor_api.errors import MachineBusy
from torpor_api.ledger import Idempotency, Place, Point
from torpor_api.ledger.machines import new_name
from torpor_api.ledger.rollbacks import Unsettled
from torpor_api.rest import TRIES
from torpor_api.services import Services
from torpor_worker.errors import MachineGone
from torpor_worker.ledger import HeadMoved
from torpor_worker.snapshots import Stored


async def fork(
    services: Services,
    account: str,
    name: str,
    at: Point | None,
    count: int,
    tags: dict[str, str] | None,
    idempotency: Idempotency | None,
) -> dict[str, Any]:
    """New machines that begin with a state of this one's; without `at` as it is now. The answer that says so.

    In the middle of an instruction nothing is waited for: they begin with the newest state in which nothing ran.
    Raises what `SqlLedger.place_to_fork` raises but `Unsettled`, `MachineBusy` if others use the machine all the time,
    and `SaveRefused`.
    """
    for _ in range(TRIES):
        place = await _place(services, account, name, at)
        names = [new_name() for _ in range(count)]
        answer = {
            "machines": names,
            "generation": None if place.snapshot is None else place.snapshot.generation,
            "lacks": place.lacks,
        }
        try:
            copies = await _copies(services, name, place, names, tags)
            await services.ledger.fork(account, name, place, copies, tags=tags, answer=answer, idempotency=idempotency)
        except (Unsettled, HeadMoved):  # the state was given up meanwhile
            await _give_up(services, names)
        except BaseException:  # also if nobody waits for them any more
            await asyncio.shield(_give_up(services, names))
            raise
        else:
            return answer
    raise MachineBusy("The machine does not come to rest: others use it.")


async def _place(services: Services, account: str, name: str, at: Point | None) -> Place:
    if at is not None:
        return await services.ledger.place_to_fork(account, name, at)
    for _ in range(TRIES):
        with suppress(Unsettled):
            place = await services.ledger.place_to_fork(account, name, None)
            if place.lacks:
                return place
            # Threads of the user's may have gone on since the head was saved.
            await services.machines.sync(name)
            return await services.ledger.place_to_fork(account, name, None)
        with suppress(MachineGone):  # parked or deleted meanwhile, which the ledger knows
            await services.machines.wake(name)
            await services.machines.sync(name)
    raise MachineBusy("The machine does not come to rest: others use it.")


async def _copies(
    services: Services, machine: str, place: Place, names: list[str], tags: dict[str, str] | None
) -> dict[str, Stored | None]:
    """The state as stored for new machines, by name; None where it is its beginning."""
    if place.snapshot is None:
        return dict.fromkeys(names)
    keys = {name: f"machines/{name}/{0:08}-{secrets.token_hex(16)}" for name in names}
    await services.ledger.expect_copies(keys)
    return {**await services.machines.derive(machine, place.snapshot, keys, tags)}


async def _give_up(services: Services, names: list[str]) -> None:
    """Take back what was stored for machines that are not to be; those that have become some are left alone."""
    condemned = await services.ledger.give_up_copies(names)
    await each(condemned.items(), lambda copy: services.machines.withdraw(*copy))
