"""Forks, from a request to new machines: save, store the state under each new machine's key, and then make it known."""

from __future__ import annotations

import secrets
from contextlib import suppress

from torpor_api.errors import MachineBusy, TorporError
from torpor_api.ledger import Idempotency, Place, Point
from torpor_api.ledger.machines import new_name
from torpor_api.ledger.rollbacks import Unsettled
from torpor_api.rest import TRIES
from torpor_api.services import Services
from torpor_worker.errors import MachineGone, SaveRefused
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
) -> list[str]:
    """Names of new machines that begin with a state of this one's; without `at` as it is now.

    Raises what `SqlLedger.place_to_fork` raises but `Unsettled`, `MachineBusy` if others use the machine all the time,
    and `SaveRefused`.
    """
    for _ in range(TRIES):
        place = await _place(services, account, name, at)
        copies = await _copies(services, place, count, tags)
        answer = {"machines": list(copies)}
        try:
            await services.ledger.fork(account, name, place, copies, tags=tags, answer=answer, idempotency=idempotency)
        except (Unsettled, HeadMoved):  # the state was given up meanwhile
            await _give_up(services, copies)
        except TorporError:
            await _give_up(services, copies)
            raise
        else:
            return list(copies)
    raise MachineBusy("The machine does not come to rest: others use it.")


async def _place(services: Services, account: str, name: str, at: Point | None) -> Place:
    if at is not None:
        return await services.ledger.place_to_fork(account, name, at)
    for _ in range(TRIES):
        with suppress(Unsettled):
            await services.ledger.place_to_fork(account, name, None)
            # Threads of the user's may have gone on since the head was saved.
            await services.machines.sync(name)
            return await services.ledger.place_to_fork(account, name, None)
        with suppress(MachineGone):  # parked or deleted meanwhile, which the ledger knows
            await services.machines.wake(name)
            await services.machines.sync(name)
    raise MachineBusy("The machine does not come to rest: others use it.")


async def _copies(
    services: Services, place: Place, count: int, tags: dict[str, str] | None
) -> dict[str, Stored | None]:
    """The state as stored for new machines, by name; None where it is its beginning."""
    copies: dict[str, Stored | None] = {new_name(): None for _ in range(count)}
    if place.snapshot is None:
        return copies
    try:
        for name in copies:
            key = f"machines/{name}/{0:08}-{secrets.token_hex(16)}"
            copies[name] = await services.machines.derive(place.snapshot, name, key, tags)
    except SaveRefused:
        await _give_up(services, copies)
        raise
    return copies


async def _give_up(services: Services, copies: dict[str, Stored | None]) -> None:
    """Make what was stored for machines that are not to be unreadable; the next start deletes it."""
    for name in copies:
        await services.machines.discard(name)
