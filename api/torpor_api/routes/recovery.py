"""Ways out for a machine that is parked, and a way to see recovery work."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

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
    MachineNotFound,
    MachineNotParked,
    MachineParked,
    PointUnreachable,
    ShuttingDown,
    SnapshotNotFound,
    Unauthorized,
)
from torpor_api.export import export
from torpor_api.ledger import Point, Unparked
from torpor_api.models import EmptyRequest, RecoverRequest
from torpor_api.routes.parameters import Name, idempotency
from torpor_api.services import Services, services_of
from torpor_worker import errors as worker_errors

router = APIRouter(tags=["recovery"])

TAR = "application/x-tar"


@router.post(
    "/v1/machine/{name}/recover",
    response_model=models.RecoverAnswer,
    responses={
        200: {"description": "What was done; for `export` a tar archive.", "content": {TAR: {}}},
        **refusals(
            Unauthorized,
            MachineNotFound,
            InstructionNotFound,
            SnapshotNotFound,
            MachineNotParked,
            MachineParked,
            PointUnreachable,
            BodyTooLarge,
            InvalidRequest,
            IdempotencyKeyReused,
            CannotWake,
            ShuttingDown,
        ),
    },
    openapi_extra=post(RecoverRequest, required=True),
)
async def recover(request: Request, account: AccountOf, name: Name) -> Response:
    """Bring a parked machine back, and answer when it is awake; 409 `machine_parked` if it could not be.

    Whatever is tried, every snapshot of it can still be reached.
    """
    services = services_of(request)
    asked = parse_body(RecoverRequest, await request.body())
    if asked.how == "export":
        services.stopping.refuse_work()
        pieces = await export(services, account, name)
        headers = {"Content-Disposition": f'attachment; filename="{name}.tar"'}
        return StreamingResponse(pieces, media_type=TAR, headers=headers)

    async def work() -> dict[str, Any]:
        services.stopping.refuse_work()
        done, left_behind = await _unpark(services, account, name, asked)
        with suppress(worker_errors.CannotWake, worker_errors.MachineGone):  # the next call tries again
            await services.machines.wake(name)
        row = await services.ledger.machine(account, name)
        if row.state == "parked":
            raise MachineParked(f"The machine is parked again: {row.parked_reason}")
        return {
            "machine_name": name,
            "how": asked.how,
            "state": row.state,
            "generation": done.generation,
            "line": done.line,
            "undone": done.undone,
            "left_behind": left_behind,
        }

    return JsonResponse(await services.once.do(services.ledger, account, idempotency(request, asked), work))


async def _unpark(services: Services, account: str, name: str, asked: RecoverRequest) -> tuple[Unparked, list[int]]:
    ledger = services.ledger
    if asked.how == "retry":
        return await ledger.retry(account, name), []
    if asked.how == "skip":
        return await ledger.skip(account, name, asked.seq), []
    if (await ledger.machine(account, name)).state != "parked":
        raise MachineNotParked
    to = Point(asked.generation) if asked.generation is not None else await ledger.newest_usable(account, name)
    done = await ledger.roll_back(account, name, to, answer=lambda _: {})
    return Unparked(done.generation, done.line, None), done.left_behind


@router.post(
    "/v1/machine/{name}/debug/crash",
    response_model=models.CrashAnswer,
    responses=refusals(Unauthorized, MachineNotFound, InvalidRequest, BodyTooLarge, IdempotencyKeyReused),
    openapi_extra=post(EmptyRequest),
)
async def crash(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """SIGKILL of the machine's process, as an accident would have it: what runs is undone, and the rest recovered."""
    services = services_of(request)
    asked = parse_body(EmptyRequest, await request.body())

    async def work() -> dict[str, Any]:
        await services.ledger.machine(account, name)
        return {"machine_name": name, "crashed": await services.machines.crash(name)}

    return JsonResponse(await services.once.do(services.ledger, account, idempotency(request, asked), work))
