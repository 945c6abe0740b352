"""What could follow at a cursor, for those who type."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from torpor_api import models
from torpor_api.authentication import AccountOf
from torpor_api.bodies import parse_body
from torpor_api.documentation import refusals, request_body
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    CannotWake,
    InvalidRequest,
    MachineNotFound,
    MachineParked,
    RuntimeQuarantined,
    ShuttingDown,
    Unauthorized,
)
from torpor_api.models import CompleteRequest
from torpor_api.routes.machines import refuse_parked
from torpor_api.routes.parameters import Name
from torpor_api.services import services_of

router = APIRouter(tags=["instructions"])


@router.post(
    "/v1/machine/{name}/complete",
    response_model=models.CompletionAnswer,
    responses=refusals(
        Unauthorized,
        MachineNotFound,
        MachineParked,
        BodyTooLarge,
        InvalidRequest,
        RuntimeQuarantined,
        CannotWake,
        ShuttingDown,
    ),
    openapi_extra=request_body(CompleteRequest, required=True),
)
async def complete(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Completions for a cursor. It wakes the machine, leaves nothing in its log, and never waits for what runs."""
    asked = parse_body(CompleteRequest, await request.body())
    cursor = len(asked.code) if asked.cursor is None else asked.cursor
    if cursor > len(asked.code):
        raise InvalidRequest("cursor: it is behind the end of the code.")
    services = services_of(request)
    services.stopping.refuse_work()
    await refuse_parked(services, account, name)
    found = await services.machines.complete(name, asked.code, cursor)
    return JsonResponse({"matches": list(found.matches), "start": found.start, "end": found.end})
