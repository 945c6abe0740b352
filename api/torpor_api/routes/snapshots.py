"""A machine's snapshots: list and pin them, go back to one, and fork new machines from one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from torpor_api import models
from torpor_api.authentication import AccountOf
from torpor_api.bodies import parse_body
from torpor_api.documentation import post, refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    CannotWake,
    IdempotencyKeyReused,
    InstructionNotFound,
    InvalidRequest,
    MachineBusy,
    MachineNotFound,
    MachineParked,
    PointUnreachable,
    SaveFailed,
    ShuttingDown,
    SnapshotNotFound,
    Unauthorized,
)
from torpor_api.forks import fork
from torpor_api.ledger import Point, RolledBack
from torpor_api.models import ForkRequest, RollbackRequest
from torpor_api.rest import end_instructions, when_asleep
from torpor_api.results import rollback_json, snapshot_json
from torpor_api.routes.parameters import Generation, Name, idempotency
from torpor_api.services import services_of

router = APIRouter(tags=["snapshots"])

POINT_REFUSALS = (
    Unauthorized,
    MachineNotFound,
    SnapshotNotFound,
    InstructionNotFound,
    MachineBusy,
    PointUnreachable,
    BodyTooLarge,
    InvalidRequest,
    IdempotencyKeyReused,
    SaveFailed,
    CannotWake,
    ShuttingDown,
)
PIN_REFUSALS = (Unauthorized, MachineNotFound, SnapshotNotFound, InvalidRequest)


@router.get(
    "/v1/machine/{name}/snapshots",
    response_model=models.SnapshotList,
    responses=refusals(Unauthorized, MachineNotFound),
)
async def list_snapshots(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """The machine's snapshots that are kept, newest first."""
    rows = await services_of(request).ledger.snapshots(account, name)
    return JsonResponse({"snapshots": [snapshot_json(row) for row in rows]})


async def _pin(request: Request, account: str, name: str, generation: int, *, pinned: bool) -> JsonResponse:
    ledger = services_of(request).ledger
    await ledger.pin(account, name, generation, pinned=pinned)
    rows = await ledger.snapshots(account, name)
    row = next((row for row in rows if row.snapshot.generation == generation), None)
    if row is None:  # nothing keeps it any more
        raise SnapshotNotFound
    return JsonResponse(snapshot_json(row))


@router.put(
    "/v1/machine/{name}/snapshots/{generation}/pin",
    response_model=models.SnapshotAnswer,
    responses=refusals(*PIN_REFUSALS),
)
async def pin_snapshot(request: Request, account: AccountOf, name: Name, generation: Generation) -> JsonResponse:
    """Keep a snapshot until it is unpinned, or its machine deleted."""
    return await _pin(request, account, name, generation, pinned=True)


@router.delete(
    "/v1/machine/{name}/snapshots/{generation}/pin",
    response_model=models.SnapshotAnswer,
    responses=refusals(*PIN_REFUSALS),
)
async def unpin_snapshot(request: Request, account: AccountOf, name: Name, generation: Generation) -> JsonResponse:
    """Keep a snapshot only as long as any other: the machine's next save may let it go."""
    return await _pin(request, account, name, generation, pinned=False)


@router.post(
    "/v1/machine/{name}/rollback",
    response_model=models.RollbackAnswer,
    responses=refusals(*POINT_REFUSALS),
    openapi_extra=post(RollbackRequest, required=True),
)
async def roll_back(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Let a machine go on from an earlier point. It is saved first; rolling back to `undo` takes it back."""
    asked = parse_body(RollbackRequest, await request.body())
    services = services_of(request)
    to = Point(asked.to.generation, asked.to.seq)
    key = idempotency(request, asked)

    async def roll_back_now() -> RolledBack:
        return await services.ledger.roll_back(
            account, name, to, answer=lambda done: rollback_json(name, done), idempotency=key
        )

    async def work() -> dict[str, Any]:
        services.stopping.refuse_work()
        if asked.interrupt:
            await end_instructions(services, account, name)
        await services.ledger.check_point(account, name, to)
        done = await when_asleep(services, name, roll_back_now)
        if done.replayed or done.stays_awake:
            services.machines.deliver(name, None)
        return rollback_json(name, done)

    return JsonResponse(await services.once.do(services.ledger, account, key, work))


@router.post(
    "/v1/machine/{name}/fork",
    response_model=models.ForkAnswer,
    responses=refusals(*POINT_REFUSALS, MachineParked),
    openapi_extra=post(ForkRequest),
)
async def fork_machine(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Make new machines that go on from a state of this one, each its own way. It costs no copy of what is stored.

    While an instruction runs and no point is named, that is the newest snapshot in which nothing ran: `lacks` names the
    instructions that are not in it.
    """
    asked = parse_body(ForkRequest, await request.body())
    services = services_of(request)
    key = idempotency(request, asked)
    at = None if asked.at is None else Point(asked.at.generation, asked.at.seq)
    tags = None if asked.tags is None else dict(asked.tags)

    async def work() -> dict[str, Any]:
        services.stopping.refuse_work()
        return await fork(services, account, name, at, asked.count or 1, tags, key)

    return JsonResponse(await services.once.do(services.ledger, account, key, work))
