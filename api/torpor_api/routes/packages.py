"""Packages: installed by a command of the machine's own `pip`, which asks the server for them."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from torpor_api.authentication import AccountOf
from torpor_api.bodies import parse_body
from torpor_api.documentation import post, refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    CannotWake,
    IdempotencyKeyReused,
    InvalidRequest,
    MachineNotFound,
    MachineParked,
    PackagesNotInstalled,
    RuntimeQuarantined,
    ShuttingDown,
    TooManyCommands,
    Unauthorized,
)
from torpor_api.instructions import finished
from torpor_api.machine_commands import answer, submit
from torpor_api.models_commands import CommandRequest
from torpor_api.models_packages import PackagesAnswer, PackagesRequest
from torpor_api.presence import Presence
from torpor_api.routes.parameters import Name, idempotency
from torpor_api.services import services_of

router = APIRouter(tags=["packages"])

TIMEOUT_SECONDS = 300.0
INSTALLED = "Successfully installed "
ERROR = "ERROR: "
SENTENCE_CHARACTERS = 2000


@router.post(
    "/v1/machine/{name}/packages",
    response_model=PackagesAnswer,
    responses=refusals(
        Unauthorized,
        MachineNotFound,
        MachineParked,
        RuntimeQuarantined,
        BodyTooLarge,
        InvalidRequest,
        IdempotencyKeyReused,
        PackagesNotInstalled,
        TooManyCommands,
        CannotWake,
        ShuttingDown,
    ),
    openapi_extra=post(PackagesRequest, required=True),
)
async def install(request: Request, account: AccountOf, name: Name) -> Response:
    """Install packages for the machine's user, beside whatever else runs there; code may import them at once."""
    services = services_of(request)
    asked = parse_body(PackagesRequest, await request.body())
    accepted = await submit(
        services, account, name, _command(asked, services.config.timeout_maximum_seconds), idempotency(request, asked)
    )
    with Presence(request.receive) as presence:
        outcome, _, _ = await finished(services, account, name, accepted.seq, presence)
        told = bool(outcome.notices) and not await presence.is_gone()
    ended = await answer(services, name, outcome)
    if ended["error"] is not None:
        raise PackagesNotInstalled(_why(ended))
    headers = {"Torpor-Machine": name, "Torpor-Instruction-Seq": str(accepted.seq)}
    response = JsonResponse(
        {
            "machine": name,
            "seq": accepted.seq,
            "installed": _installed(ended["stdout"]),
            "output": ended["stdout"],
            "notices": ended["notices"],
            "timings": ended["timings"],
        },
        headers=headers,
    )
    if told:
        await services.ledger.deliver_notices(name, outcome.notices[-1].id)
    return response


def _command(asked: PackagesRequest, longest_seconds: float) -> CommandRequest:
    upgrade = ["--upgrade"] if asked.upgrade else []
    seconds = TIMEOUT_SECONDS if asked.timeout_seconds is None else asked.timeout_seconds
    if asked.timeout_seconds in (None, math.inf):
        seconds = min(seconds, longest_seconds)
    return CommandRequest(
        command=["pip", "install", "--no-color", "--progress-bar=off", *upgrade, "--", *asked.packages],
        timeout_seconds=seconds,
    )


def _installed(said: str) -> list[dict[str, str]]:
    """What `pip` says it has installed."""
    lines = [line.removeprefix(INSTALLED) for line in said.splitlines() if line.startswith(INSTALLED)]
    pairs = [each.rpartition("-") for line in lines for each in line.split()]
    return [{"name": name, "version": version} for name, _, version in pairs]


def _why(ended: dict[str, Any]) -> str:
    """The sentence that `pip` ended with, or else how it ended."""
    sentences = [line.removeprefix(ERROR) for line in ended["stderr"].splitlines() if line.startswith(ERROR)]
    if ended["exit_code"] is not None and sentences:
        return str(sentences[0])[:SENTENCE_CHARACTERS]
    return f"The installation did not end well: {ended['error']}."
