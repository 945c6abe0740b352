"""Who am I."""

from __future__ import annotations

from fastapi import APIRouter

from torpor_api import models
from torpor_api.authentication import AccountOf
from torpor_api.documentation import refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import Unauthorized

router = APIRouter(tags=["account"])


@router.get("/v1/whoami", response_model=models.Account, responses=refusals(Unauthorized))
async def whoami(account: AccountOf) -> JsonResponse:
    """Whose key this is."""
    return JsonResponse({"account": account})
