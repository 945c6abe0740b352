"""What paths and queries may say."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import BaseModel
from starlette.requests import Request

from torpor_api.bodies import fingerprint
from torpor_api.errors import InstructionNotFound, InvalidRequest, MachineNotFound, SnapshotNotFound
from torpor_api.ledger import Idempotency
from torpor_api.once import idempotency_of

MACHINE_NAME = re.compile(r"[A-Za-z0-9]{16}")
LARGEST_SEQ = 2**62


def checked_name(name: str) -> str:
    """A machine's name. Raises `MachineNotFound` for what cannot be one, as for one that is not there."""
    if MACHINE_NAME.fullmatch(name) is None:
        raise MachineNotFound
    return name


def _name(name: Annotated[str, Path(description="16 letters and digits.")]) -> str:
    return checked_name(name)


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
Generation = Annotated[int, Depends(_generation)]
Seq = Annotated[int, Depends(_seq)]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Page with this many; all by default.")]
Cursor = Annotated[str | None, Depends(_cursor)]


def idempotency(request: Request, body: BaseModel) -> Idempotency | None:
    """The idempotency of a request whose body was read."""
    key = request.headers.get("idempotency-key")
    return idempotency_of(key, request.method, request.url.path, fingerprint(body))
