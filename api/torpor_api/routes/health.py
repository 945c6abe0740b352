"""Whether the server lives, and whether it takes work."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from torpor_api import models
from torpor_api.documentation import refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import ShuttingDown
from torpor_api.services import services_of
from torpor_worker.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])
OPEN: dict[str, object] = {"security": []}


@router.get("/healthz", response_model=models.Health, openapi_extra=OPEN)
async def healthz() -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@router.get("/readyz", response_model=models.Health, responses=refusals(ShuttingDown), openapi_extra=OPEN)
async def readyz(request: Request) -> JsonResponse:
    """It takes work: 503 while it is stopping."""
    services_of(request).stopping.refuse_work()
    return JsonResponse({"status": "ready"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    openapi_extra=OPEN,
)
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus, in its text format."""
    services = services_of(request)
    services.metrics.stored_bytes.set(await services.ledger.stored_bytes())
    return Response(await services.metrics.text(), media_type=CONTENT_TYPE)
