"""Instructions: part 1's `exec` and its results, history, events, interrupt."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from torpor_api import models, models_stdin
from torpor_api.authentication import AccountOf
from torpor_api.bodies import parse_body
from torpor_api.documentation import post, refusals
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    IdempotencyKeyReused,
    InstructionExpired,
    InstructionNotFound,
    InstructionNotRunning,
    InvalidRequest,
    MachineNotFound,
    MachineParked,
    RuntimeQuarantined,
    ShuttingDown,
    StdinClosed,
    StdinFull,
    TooManyUnfinished,
    Unauthorized,
)
from torpor_api.events import EventId
from torpor_api.instructions import (
    collect,
    end,
    feed,
    finished,
    last_picture,
    refuse_expired,
    stdin_of,
    submit,
    timeout_of,
    when_busy_of,
)
from torpor_api.ledger import Accepted
from torpor_api.models import ExecRequest, InterruptRequest
from torpor_api.models_stdin import StdinRequest
from torpor_api.presence import Presence
from torpor_api.results import exec_result, instruction_json
from torpor_api.routes.parameters import Cursor, Limit, Name, Seq, idempotency
from torpor_api.routes.run import run_events
from torpor_api.services import services_of
from torpor_api.streams import HEADERS, NDJSON, SSE, event_stream, messages, ndjson, wanted
from torpor_worker.command import CommandInput

router = APIRouter(tags=["instructions"])

NO_CONTENT = 204


@router.post(
    "/v1/machine/{name}/exec",
    response_model=models.ExecAnswer,
    response_model_exclude_none=True,
    responses=refusals(
        Unauthorized,
        MachineNotFound,
        MachineParked,
        RuntimeQuarantined,
        BodyTooLarge,
        InvalidRequest,
        IdempotencyKeyReused,
        TooManyUnfinished,
        ShuttingDown,
    ),
    openapi_extra=post(ExecRequest, required=True),
)
async def execute(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Accept an instruction, and answer at once. Without `instruction_seq` the machine was busy."""
    services = services_of(request)
    asked = parse_body(ExecRequest, await request.body())
    outcome, interrupted = await submit(
        services,
        account,
        name,
        asked.instruction.code,
        timeout_of(services, asked.instruction.timeout_seconds, "instruction.timeout_seconds"),
        when_busy=when_busy_of(asked),
        idempotency=idempotency(request, asked),
        stdin=stdin_of(asked.instruction),
    )
    answer: dict[str, Any] = {"instruction_seq": outcome.seq} if isinstance(outcome, Accepted) else {}
    return JsonResponse({**answer, "interrupted": interrupted, "machine": name})


@router.get(
    "/v1/machine/{name}/exec",
    response_model=models.History,
    responses=refusals(Unauthorized, MachineNotFound, InvalidRequest),
)
async def history(
    request: Request, account: AccountOf, name: Name, limit: Limit = 100, cursor: Cursor = None
) -> JsonResponse:
    """A machine's instructions, newest first. The last page has `lost_before` if a rebuild lost any below it."""
    ledger = services_of(request).ledger
    rows, next_cursor = await ledger.instructions(account, name, limit=limit, cursor=cursor)
    answer: dict[str, Any] = {"instructions": [instruction_json(row) for row in rows]}
    if next_cursor is not None:
        answer["next_cursor"] = next_cursor
    elif (lost_before := await ledger.lost_before(account, name)) is not None:
        answer["lost_before"] = lost_before
    return JsonResponse(answer)


@router.get(
    "/v1/machine/{name}/exec/{seq}",
    response_model=models.InstructionAnswer,
    responses=refusals(Unauthorized, MachineNotFound, InstructionNotFound, InvalidRequest),
)
async def get_instruction(
    request: Request,
    account: AccountOf,
    name: Name,
    seq: Seq,
    with_events: Annotated[bool, Query(alias="events", description="Whether with its output so far.")] = True,
) -> JsonResponse:
    """One instruction, with its output so far."""
    services = services_of(request)
    row = await services.ledger.instruction(account, name, seq)
    answer = instruction_json(row)
    return JsonResponse({**answer, "events": await collect(services, row, name)} if with_events else answer)


@router.get(
    "/v1/machine/{name}/exec/{seq}/result",
    response_model=models.ResultAnswer,
    response_model_exclude_none=True,
    responses=refusals(
        Unauthorized, MachineNotFound, InstructionNotFound, InstructionExpired, InvalidRequest, ShuttingDown
    ),
)
async def result(request: Request, account: AccountOf, name: Name, seq: Seq) -> JsonResponse:
    """Wait for an instruction's result."""
    services = services_of(request)
    with Presence(request.receive) as presence:
        outcome, ended, _ = await finished(services, account, name, seq, presence)
    picture = await last_picture(services, name, seq, outcome.output)
    return JsonResponse({"instruction_id": seq, "result": exec_result(ended, picture)})


@router.get(
    "/v1/machine/{name}/exec/{seq}/stream-result",
    response_class=StreamingResponse,
    responses={
        200: {"description": "NDJSON: `output` lines, then one `result`.", "content": {NDJSON: {}}},
        **refusals(Unauthorized, MachineNotFound, InstructionNotFound, InstructionExpired, InvalidRequest),
    },
)
async def stream_result(request: Request, account: AccountOf, name: Name, seq: Seq) -> StreamingResponse:
    """All output lines of an instruction from the beginning, as they come, and its result."""
    services = services_of(request)
    refuse_expired(await services.ledger.instruction(account, name, seq))
    return StreamingResponse(ndjson(messages(services, account, name, seq)), media_type=NDJSON, headers=HEADERS)


@router.get(
    "/v1/machine/{name}/exec/{seq}/events",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Events, as NDJSON or SSE as `Accept` says.", "content": {NDJSON: {}, SSE: {}}},
        204: {"description": "Nothing more will come after the event named."},
        **refusals(Unauthorized, MachineNotFound, InstructionNotFound, InstructionExpired, InvalidRequest),
    },
)
async def events(
    request: Request,
    account: AccountOf,
    name: Name,
    seq: Seq,
    after: Annotated[str | None, Query(max_length=64, description="`id` of the last event that was read.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    notices: Annotated[
        bool, Query(description="Whether with what the machine's users were not told yet, before the result.")
    ] = False,
) -> Response:
    """An instruction's events from any point on: how a client attaches again."""
    services = services_of(request)
    last_read = last_event_id or after
    start = EventId.parse(last_read) if last_read else None
    refuse_expired(await services.ledger.instruction(account, name, seq))
    if start is not None and start.after_result:
        page = await services.ledger.output(name, seq, attempt=start.attempt, after=start.offset, background=True)
        if not page.records:
            return Response(status_code=NO_CONTENT)
    kind = wanted(request.headers.get("accept")) or NDJSON
    batches = run_events(services, account, name, seq, start, with_notices=notices, to_the_end=True)
    return event_stream(batches, kind, {})


@router.post(
    "/v1/machine/{name}/exec/{seq}/stdin",
    response_model=models_stdin.StdinAnswer,
    responses=refusals(
        Unauthorized,
        MachineNotFound,
        InstructionNotFound,
        InstructionNotRunning,
        StdinClosed,
        StdinFull,
        MachineParked,
        RuntimeQuarantined,
        BodyTooLarge,
        InvalidRequest,
        IdempotencyKeyReused,
        ShuttingDown,
    ),
    openapi_extra=post(StdinRequest, required=True),
)
async def send_stdin(request: Request, account: AccountOf, name: Name, seq: Seq) -> JsonResponse:
    """Give an instruction that runs more to read. Pieces arrive in the order in which they were accepted."""
    asked = parse_body(StdinRequest, await request.body())
    piece = CommandInput((asked.data or "").encode(), bool(asked.close))
    await feed(services_of(request), account, name, seq, piece, idempotency(request, asked))
    return JsonResponse({"machine": name, "instruction_seq": seq})


@router.post(
    "/v1/machine/{name}/interrupt",
    response_model=models.Interrupted,
    responses=refusals(Unauthorized, MachineNotFound, InvalidRequest, IdempotencyKeyReused),
    openapi_extra=post(InterruptRequest),
)
async def interrupt(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """KeyboardInterrupt in what runs now; with `seq` only in that one, as soon as it begins if it still waits."""
    services = services_of(request)
    asked = parse_body(InterruptRequest, await request.body())

    async def work() -> dict[str, Any]:
        await services.ledger.machine(account, name)
        seq = await end(services, account, name, asked.seq)
        return {"interrupted": seq is not None, "instruction_seq": seq}

    return JsonResponse(await services.once.do(services.ledger, account, idempotency(request, asked), work))
