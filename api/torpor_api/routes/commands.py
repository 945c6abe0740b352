"""Commands beside instructions: execute, list, feed, signal."""

from __future__ import annotations

import signal
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from torpor_api import models_commands as models
from torpor_api.authentication import AccountOf
from torpor_api.bodies import parse_body
from torpor_api.documentation import post, refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    CommandInputClosed,
    CommandInputFull,
    CommandNotFound,
    CommandNotRunning,
    IdempotencyKeyReused,
    InvalidRequest,
    MachineNotFound,
    MachineParked,
    RuntimeQuarantined,
    ShuttingDown,
    TooManyCommands,
    Unauthorized,
)
from torpor_api.instructions import finished
from torpor_api.machine_commands import answer, submit, tell
from torpor_api.models_commands import CommandInputRequest, CommandRequest, CommandSignalRequest, TerminalSize
from torpor_api.presence import Presence
from torpor_api.results import command_json
from torpor_api.routes.parameters import Cursor, Limit, Name, Seq, idempotency
from torpor_api.routes.run import run_events
from torpor_api.services import services_of
from torpor_api.streams import NDJSON, SSE, event_stream, wanted
from torpor_worker.command import CommandInput, CommandSignal, Terminal

router = APIRouter(tags=["commands"])

_REFUSED = (
    Unauthorized,
    MachineNotFound,
    MachineParked,
    RuntimeQuarantined,
    BodyTooLarge,
    InvalidRequest,
    IdempotencyKeyReused,
    ShuttingDown,
)
_OF_ONE = (*_REFUSED, CommandNotFound, CommandNotRunning)


@router.post(
    "/v1/machine/{name}/commands",
    response_model=models.CommandAnswer | models.CommandStarted,
    responses={
        200: {
            "description": "All that it said, or its events as they come, if `Accept` asks for a stream; of one in the "
            "background only its `seq`.",
            "content": {NDJSON: {"schema": {"type": "string"}}, SSE: {"schema": {"type": "string"}}},
        },
        **refusals(*_REFUSED, TooManyCommands),
    },
    openapi_extra=post(CommandRequest, required=True),
)
async def execute(request: Request, account: AccountOf, name: Name) -> Response:
    """Execute a command, beside whatever else runs there, and answer with all that it said."""
    services = services_of(request)
    asked = parse_body(CommandRequest, await request.body())
    accepted = await submit(services, account, name, asked, idempotency(request, asked))
    headers = {"Torpor-Machine": name, "Torpor-Instruction-Seq": str(accepted.seq)}
    stream_kind = wanted(request.headers.get("accept"))
    with_notices = asked.notices is not False
    if stream_kind is not None:
        events = run_events(services, account, name, accepted.seq, with_notices=with_notices)
        return event_stream(events, stream_kind, headers)
    if asked.background:
        return JsonResponse({"machine": name, "seq": accepted.seq}, headers=headers)
    with Presence(request.receive) as presence:
        outcome, _, _ = await finished(services, account, name, accepted.seq, presence)
        told = with_notices and bool(outcome.notices) and not await presence.is_gone()
    response = JsonResponse(await answer(services, name, outcome, with_notices=with_notices), headers=headers)
    if told:
        await services.ledger.deliver_notices(name, outcome.notices[-1].id)
    return response


@router.get(
    "/v1/machine/{name}/commands",
    response_model=models.CommandList,
    responses=refusals(Unauthorized, MachineNotFound, InvalidRequest),
)
async def list_commands(
    request: Request, account: AccountOf, name: Name, limit: Limit = 100, cursor: Cursor = None
) -> JsonResponse:
    """A machine's commands: those that run or wait, all of them, on the first page; then the others, newest first."""
    rows, next_cursor = await services_of(request).ledger.commands(account, name, limit=limit, cursor=cursor)
    listed: dict[str, Any] = {"commands": [command_json(row) for row in rows]}
    if next_cursor is not None:
        listed["next_cursor"] = next_cursor
    return JsonResponse(listed)


@router.post(
    "/v1/machine/{name}/commands/{seq}/stdin",
    response_model=models.CommandStarted,
    responses=refusals(*_OF_ONE, CommandInputClosed, CommandInputFull),
    openapi_extra=post(CommandInputRequest, required=True),
)
async def feed(request: Request, account: AccountOf, name: Name, seq: Seq) -> JsonResponse:
    """Give a command more input, or end its input. Pieces arrive in the order in which they were accepted."""
    asked = parse_body(CommandInputRequest, await request.body())
    piece = CommandInput(asked.content, bool(asked.close))
    return await _tell(request, account, name, seq, asked, piece)


@router.post(
    "/v1/machine/{name}/commands/{seq}/signal",
    response_model=models.CommandStarted,
    responses=refusals(*_OF_ONE),
    openapi_extra=post(CommandSignalRequest, required=True),
)
async def send_signal(request: Request, account: AccountOf, name: Name, seq: Seq) -> JsonResponse:
    """Send a command's process group a signal; with a terminal, what it has in front. `KILL` ends its whole session."""
    asked = parse_body(CommandSignalRequest, await request.body())
    sign = CommandSignal(asked.number, session=asked.number == signal.SIGKILL)
    return await _tell(request, account, name, seq, asked, sign)


@router.post(
    "/v1/machine/{name}/commands/{seq}/resize",
    response_model=models.CommandStarted,
    responses=refusals(*_OF_ONE),
    openapi_extra=post(TerminalSize, required=True),
)
async def resize(request: Request, account: AccountOf, name: Name, seq: Seq) -> JsonResponse:
    """Give a command's terminal another size."""
    asked = parse_body(TerminalSize, await request.body())
    sign = CommandSignal(signal.SIGWINCH, terminal=Terminal(asked.rows, asked.columns))
    return await _tell(request, account, name, seq, asked, sign)


async def _tell(
    request: Request,
    account: str,
    name: str,
    seq: int,
    asked: CommandInputRequest | CommandSignalRequest | TerminalSize,
    what: CommandInput | CommandSignal,
) -> JsonResponse:
    await tell(services_of(request), account, name, seq, what, idempotency(request, asked))
    return JsonResponse({"machine": name, "seq": seq})
