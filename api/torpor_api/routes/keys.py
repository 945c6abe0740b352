"""The account's API keys: list, make, revoke."""

from __future__ import annotations

import secrets

from fastapi import APIRouter
from starlette.requests import Request

from torpor_api import models
from torpor_api.authentication import AccountOf, bearer_token
from torpor_api.bodies import parse_body
from torpor_api.documentation import post, refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import BodyTooLarge, InvalidRequest, KeyNotFound, LastKey, Unauthorized
from torpor_api.ledger.accounts import digest_of, key_id
from torpor_api.models import NewKeyRequest
from torpor_api.results import moment
from torpor_api.services import services_of

router = APIRouter(tags=["account"])


@router.get("/v1/keys", response_model=models.KeyList, responses=refusals(Unauthorized))
async def list_keys(request: Request, account: AccountOf) -> JsonResponse:
    """The account's keys, oldest first, without their secrets; `current` is the one of this request."""
    _, _, secret = bearer_token(request.headers).partition(".")
    current = key_id(digest_of(secret))
    rows = await services_of(request).ledger.keys(account)
    keys = [
        {"id": row.id, "name": row.name, "created_at": moment(row.created_at), "current": row.id == current}
        for row in rows
    ]
    return JsonResponse({"keys": keys})


@router.post(
    "/v1/keys",
    response_model=models.NewKey,
    responses=refusals(Unauthorized, BodyTooLarge, InvalidRequest),
    openapi_extra=post(NewKeyRequest, repeatable=False),
)
async def new_key(request: Request, account: AccountOf) -> JsonResponse:
    """Make a key. Its secret is in this answer and nowhere else, so there are no repeats: revoke what was lost."""
    asked = parse_body(NewKeyRequest, await request.body())
    secret = secrets.token_urlsafe(32)
    name = asked.name or ""
    await services_of(request).ledger.add_key(account, secret, name)
    return JsonResponse({"id": key_id(digest_of(secret)), "name": name, "api_key": f"{account}.{secret}"})


@router.delete(
    "/v1/keys/{key}",
    response_model=models.RevokedKey,
    responses=refusals(Unauthorized, KeyNotFound, LastKey),
)
async def revoke_key(request: Request, account: AccountOf, key: str) -> JsonResponse:
    """Revoke a key at once; the last one cannot be."""
    await services_of(request).ledger.revoke_key(account, key)
    return JsonResponse({"id": key})
