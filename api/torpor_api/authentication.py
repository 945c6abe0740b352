"""Which account a request speaks for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.websockets import WebSocket

from torpor_api.errors import Unauthorized
from torpor_api.services import Services, services_of

TOKEN_LIMIT = 512
QUERY_TOKEN = "_forevervm_jwt"  # noqa: S105 (the name of a parameter)


def bearer_token(headers: Headers) -> str:
    """The token of `Authorization: Bearer`. Raises `Unauthorized`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized
    return token.strip()


async def account_of_token(services: Services, token: str) -> str:
    """The account that an API key belongs to. Raises `Unauthorized`."""
    if not token or len(token) > TOKEN_LIMIT or not token.isascii() or not token.isprintable():
        raise Unauthorized
    return await services.ledger.authenticate(token)


async def account_of_request(request: Request) -> str:
    """The account of an HTTP request. Raises `Unauthorized`."""
    return await account_of_token(services_of(request), bearer_token(request.headers))


async def account_of_websocket(websocket: WebSocket) -> str:
    """The account of a WebSocket; browsers cannot set headers, so the key may be in the query."""
    if "authorization" in websocket.headers:
        token = bearer_token(websocket.headers)
    else:
        token = websocket.query_params.get(QUERY_TOKEN, "")
    return await account_of_token(services_of(websocket), token)


AccountOf = Annotated[str, Depends(account_of_request)]
