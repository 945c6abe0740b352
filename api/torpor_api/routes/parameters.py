"""What paths and queries may say."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from torpor_api.authentication import AccountOf
from torpor_api.bodies import fingerprint
from torpor_api.errors import InstructionNotFound, InvalidRequest, SnapshotNotFound
from torpor_api.ledger import Idempotency
from torpor_api.models import Alias
from torpor_api.names import machine_named
from torpor_api.once import idempotency_of
from torpor_api.services import services_of

LARGEST_SEQ = 2**62


async def _name(
    request: Request,
    account: AccountOf,
    name: Annotated[str, Path(description="16 letters and digits, or an alias of the account's own.")],
) -> str:
    return await machine_named(services_of(request).ledger, account, name)


def _alias(
    alias: Annotated[str, Path(description="1 to 63 letters, digits, dots, underscores and hyphens.")],
) -> str:
    try:
        return TypeAdapter(Alias).validate_python(alias)
    except ValidationError as error:
        raise InvalidRequest(f"alias: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None


def _seq(seq: Annotated[int, Path(description="Counted from 0 per machine.")]) -> int:
    if not 0 <= seq <= LARGEST_SEQ:
        raise InstructionNotFound
    return seq


def _generation(generation: Annotated[int, Path(description="Of a snapshot, counted from 0 per machine.")]) -> int:
    if not 0 <= generation <= LARGEST_SEQ:
        raise SnapshotNotFound
    return generation


def _cursor(
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> str | None:
    if cursor is not None and not (cursor.isascii() and cursor.isprintable()):
        raise InvalidRequest("cursor: it is not one that this server gave.")
    return cursor


Name = Annotated[str, Depends(_name)]
AliasInPath = Annotated[str, Depends(_alias)]
Generation = Annotated[int, Depends(_generation)]
Seq = Annotated[int, Depends(_seq)]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Page with this many; all by default.")]
Cursor = Annotated[str | None, Depends(_cursor)]


def idempotency(request: Request, body: BaseModel) -> Idempotency | None:
    """The idempotency of a request whose body was read."""
    key = request.headers.get("idempotency-key")
    return idempotency_of(key, request.method, request.url.path, fingerprint(body))
