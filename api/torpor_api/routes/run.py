"""`run`: code in, all of it out, in one round trip. Plain ASGI, since this is the path that has to be fast."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from torpor_api.authentication import account_of_token, bearer_token
from torpor_api.bodies import fingerprint, parse_body, read_body
from torpor_api.documentation import IDEMPOTENCY_KEY, reference, refusals, request_body
from torpor_api.edge import Edge
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    BodyTooLarge,
    IdempotencyKeyReused,
    InvalidRequest,
    MachineBusy,
    MachineNotFound,
    MachineParked,
    RuntimeQuarantined,
    ShuttingDown,
    TooManyUnfinished,
    Unauthorized,
)
from torpor_api.events import Event, EventId, notice_json
from torpor_api.instructions import (
    finished,
    follow,
    run_answer,
    run_answer_at_once,
    stdin_of,
    submit_or_refuse,
    submit_to_new,
    timeout_of,
    when_busy_of,
)
from torpor_api.ledger import Idempotency, Outcome
from torpor_api.models import Error, NewMachineRequest, RunAnswer, RunNewRequest, RunRequest
from torpor_api.names import machine_named
from torpor_api.once import idempotency_of
from torpor_api.presence import Presence
from torpor_api.routes.machines import settings_of
from torpor_api.services import Services, services_of
from torpor_api.streams import NDJSON, SSE, event_stream, wanted

PATHS = ("/v1/machine/{name}/run", "/v1/run")
_PATH = re.compile(r"/v1/(?:machine/(?P<name>[^/]+)/)?run")


class Run:
    """Both routes, as an ASGI application of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Errors are left to those who called."""
        services = services_of(Request(scope))
        headers = Headers(scope=scope)
        account = await account_of_token(services, bearer_token(headers))
        name = scope["path_params"].get("name")
        if name is not None:
            name = await machine_named(services.ledger, account, name)
        body = await read_body(receive)
        asked = parse_body(RunRequest, body) if name is not None else parse_body(RunNewRequest, body)
        timeout_seconds = timeout_of(services, asked.timeout_seconds)
        idempotency: Idempotency | None = None
        if (key := headers.get("idempotency-key")) is not None:
            idempotency = idempotency_of(key, "POST", scope["path"], fingerprint(asked))
        stream_kind = wanted(headers.get("accept"))
        told = stream_kind is not None or bool(asked.stdin_open)
        stdin = stdin_of(asked)
        if isinstance(asked, RunNewRequest):
            settings = settings_of(services, NewMachineRequest(template=asked.template))
            machine, accepted = await submit_to_new(
                services,
                account,
                settings,
                asked.code,
                timeout_seconds,
                idempotency=idempotency,
                told=told,
                stdin=stdin,
            )
        else:
            machine = str(name)
            accepted = await submit_or_refuse(
                services,
                account,
                machine,
                asked.code,
                timeout_seconds,
                when_busy=when_busy_of(asked),
                idempotency=idempotency,
                told=told,
                stdin=stdin,
            )
        answer_headers = {"Torpor-Machine": machine, "Torpor-Instruction-Seq": str(accepted.seq)}
        with_wake, with_notices = bool(asked.timings), asked.notices is not False
        if stream_kind is not None:
            events = run_events(
                services, account, machine, accepted.seq, with_wake=with_wake, with_notices=with_notices
            )
            stream = event_stream(events, stream_kind, answer_headers)
            await stream(scope, receive, send)
            return
        fresh = accepted.entry.position is not None and not accepted.repeated

        def prepare(outcome: Outcome) -> JsonResponse | None:
            answer = run_answer_at_once(machine, outcome, with_wake=with_wake, with_notices=with_notices)
            return None if answer is None else JsonResponse(answer, headers=answer_headers)

        with Presence(receive) as presence:
            outcome, result, response = await finished(
                services, account, machine, accepted.seq, presence, fresh=fresh, prepare=prepare
            )
            if response is None:
                answer = await run_answer(
                    services, machine, outcome, result, with_wake=with_wake, with_notices=with_notices
                )
                response = JsonResponse(answer, headers=answer_headers)
            # To one who has hung up an answer can be written without an error: nobody was told by it.
            noticed = with_notices and bool(outcome.notices) and not await presence.is_gone()
        await response(scope, receive, send)
        if noticed:
            await services.ledger.deliver_notices(machine, outcome.notices[-1].id)


class Shortcut:
    """Takes runs around the framework, through nothing but the edge; other sites' go through it, for their headers."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._run = Edge(Run())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        match = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if match is None or any(name == b"origin" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
        else:
            await self._run({**scope, "app": self._app, "path_params": match.groupdict()}, receive, send)


async def run_events(
    services: Services,
    account: str,
    machine: str,
    seq: int,
    start: EventId | None = None,
    *,
    with_wake: bool = False,
    with_notices: bool = True,
    to_the_end: bool = False,
) -> AsyncIterator[list[Event]]:
    """The events of an instruction or a command, with the machine's notices before the result.

    `to_the_end`: with output from the background behind the result.
    """
    async for batch in follow(services, account, machine, seq, start, with_wake=with_wake):
        if not batch or batch[-1]["type"] != "result":
            yield batch
            continue
        notices = await services.ledger.read_notices(machine) if with_notices else []
        for event in batch[:-1]:
            yield [event]
        if notices:
            yield [{"type": "notice", **notice_json(notice)} for notice in notices]
        yield [{**batch[-1], "machine": machine}]
        if notices:
            await services.ledger.deliver_notices(machine, notices[-1].id)
        if not to_the_end:
            break


def routes() -> list[Route]:
    """The routes of `run`."""
    application: ASGIApp = Run()
    return [Route(path, application, methods=["POST"], include_in_schema=False) for path in PATHS]


def operations() -> dict[str, Any]:
    """What the OpenAPI document says of them, path by path."""
    errors = refusals(
        Unauthorized,
        MachineNotFound,
        MachineBusy,
        MachineParked,
        RuntimeQuarantined,
        BodyTooLarge,
        InvalidRequest,
        IdempotencyKeyReused,
        TooManyUnfinished,
        ShuttingDown,
    )
    responses: dict[str, Any] = {
        "200": {
            "description": "All that it said; or its events as they come, if `Accept` asks for a stream.",
            "content": {
                "application/json": {"schema": reference(RunAnswer)},
                NDJSON: {"schema": {"type": "string"}},
                SSE: {"schema": {"type": "string"}},
            },
            "headers": {
                "Torpor-Machine": {"schema": {"type": "string"}},
                "Torpor-Instruction-Seq": {"schema": {"type": "integer"}},
            },
        }
    }
    for status, told in errors.items():
        content = {"application/json": {"schema": reference(Error)}}
        responses[str(status)] = {"description": told["description"], "content": content}
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "16 letters and digits.",
        "schema": {"type": "string"},
    }
    shared = {"tags": ["instructions"], "responses": responses}
    return {
        PATHS[0]: {
            "post": {
                "summary": "Run code on a machine, and answer with all of it",
                "operationId": "run",
                "parameters": [name, IDEMPOTENCY_KEY],
                **request_body(RunRequest, required=True),
                **shared,
            }
        },
        PATHS[1]: {
            "post": {
                "summary": "Run code on a new machine; the answer names it",
                "operationId": "run_on_new_machine",
                "parameters": [IDEMPOTENCY_KEY],
                **request_body(RunNewRequest, required=True),
                **shared,
            }
        },
    }
