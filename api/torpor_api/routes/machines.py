"""Machines: make, list, look at, delete, and the transitions by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from torpor_api import models
from torpor_api.authentication import AccountOf
from torpor_api.bodies import parse_body
from torpor_api.documentation import post, refusals, request_body
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    AliasTaken,
    BodyTooLarge,
    CannotWake,
    IdempotencyKeyReused,
    InvalidRequest,
    MachineNotFound,
    MachineParked,
    NotIdle,
    RuntimeQuarantined,
    SaveFailed,
    ShuttingDown,
    Unauthorized,
)
from torpor_api.ledger import Idempotency, MachineSettings
from torpor_api.machines import Machines
from torpor_api.models import ChangeRequest, EmptyRequest, ListRequest, NewMachineRequest
from torpor_api.results import machine_detail, machine_json
from torpor_api.routes.parameters import AliasInPath, Cursor, Limit, Name, idempotency
from torpor_api.services import Services, services_of
from torpor_worker.errors import MachineGone
from torpor_worker.ledger import Durability, Recovery
from torpor_worker.templates import PYTHON

router = APIRouter(tags=["machines"])

MEBIBYTE = 1024 * 1024


def settings_of(services: Services, asked: NewMachineRequest) -> MachineSettings:
    """The settings asked for, and the server's where nothing was said. Raises `InvalidRequest`."""
    config = services.config
    memory_mb = asked.memory_mb or int(config.memory_per_machine) // MEBIBYTE
    _check_memory(services, memory_mb)
    return MachineSettings(
        memory_mb=memory_mb,
        idle_seconds=asked.idle_seconds if "idle_seconds" in asked.model_fields_set else config.idle_seconds,
        template=asked.template or PYTHON,
        durability=Durability(asked.durability or Durability.INTERVAL),
        recovery=Recovery(asked.recovery or Recovery.REPLAY),
        replay_seconds=asked.replay_seconds or config.replay_seconds,
        tags=dict(asked.tags or {}),
    )


async def create(
    services: Services,
    account: str,
    asked: NewMachineRequest,
    key: Idempotency | None = None,
    alias: str | None = None,
) -> tuple[str, bool]:
    """Make a machine: its name, and whether it was there, made under this key or called so."""
    services.stopping.refuse_work()
    settings = settings_of(services, asked)
    return await services.ledger.create_machine(account, settings, idempotency=key, alias=alias)


def _check_memory(services: Services, memory_mb: int) -> None:
    most = services.config.memory_total_bytes // MEBIBYTE
    if memory_mb > most:
        raise InvalidRequest(f"memory_mb: this server has {most} MiB for all machines together.")


@router.post(
    "/v1/machine/new",
    response_model=models.MachineName,
    responses=refusals(Unauthorized, BodyTooLarge, InvalidRequest, IdempotencyKeyReused, ShuttingDown),
    openapi_extra=post(NewMachineRequest),
)
async def new_machine(request: Request, account: AccountOf) -> JsonResponse:
    """Make a machine. It starts asleep; its first instruction wakes it."""
    asked = parse_body(NewMachineRequest, await request.body())
    name, _ = await create(services_of(request), account, asked, idempotency(request, asked))
    return JsonResponse({"machine_name": name})


@router.put(
    "/v1/machine/{alias}",
    response_model=models.NamedMachine,
    responses=refusals(Unauthorized, BodyTooLarge, InvalidRequest, ShuttingDown)
    | {201: {"model": models.NamedMachine, "description": "It was made."}},
    openapi_extra=request_body(NewMachineRequest),
)
async def get_or_create_machine(request: Request, account: AccountOf, alias: AliasInPath) -> JsonResponse:
    """The machine that the account calls so, made if there is none; only then do the settings mean anything."""
    asked = parse_body(NewMachineRequest, await request.body())
    name, was_there = await create(services_of(request), account, asked, alias=alias)
    answer = {"machine_name": name, "alias": alias, "created": not was_there}
    return JsonResponse(answer, status_code=HTTPStatus.OK if was_there else HTTPStatus.CREATED)


async def _list(
    request: Request, account: str, tags: dict[str, str], limit: int | None, cursor: str | None
) -> JsonResponse:
    machines, next_cursor = await services_of(request).ledger.machines(account, tags=tags, limit=limit, cursor=cursor)
    answer: dict[str, Any] = {"machines": [machine_json(machine) for machine in machines]}
    if next_cursor is not None:
        answer["next_cursor"] = next_cursor
    return JsonResponse(answer)


@router.get(
    "/v1/machine/list",
    response_model=models.MachineList,
    responses=refusals(Unauthorized, InvalidRequest),
)
async def list_machines(
    request: Request, account: AccountOf, limit: Limit = None, cursor: Cursor = None
) -> JsonResponse:
    """The account's machines, newest first."""
    asked = parse_body(ListRequest, await request.body())
    return await _list(request, account, dict(asked.tags or {}), limit, cursor)


@router.post(
    "/v1/machine/list",
    response_model=models.MachineList,
    responses=refusals(Unauthorized, InvalidRequest, BodyTooLarge),
    openapi_extra=request_body(ListRequest),
)
async def list_machines_with_tags(
    request: Request, account: AccountOf, limit: Limit = None, cursor: Cursor = None
) -> JsonResponse:
    """The account's machines that carry all of the tags, newest first."""
    asked = parse_body(ListRequest, await request.body())
    return await _list(request, account, dict(asked.tags or {}), limit, cursor)


@router.get(
    "/v1/machine/{name}",
    response_model=models.MachineDetail,
    responses=refusals(Unauthorized, MachineNotFound),
)
async def get_machine(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """All there is to know about a machine."""
    return JsonResponse(machine_detail(await services_of(request).ledger.machine(account, name)))


@router.patch(
    "/v1/machine/{name}",
    response_model=models.MachineDetail,
    responses=refusals(Unauthorized, MachineNotFound, AliasTaken, BodyTooLarge, InvalidRequest),
    openapi_extra=request_body(ChangeRequest),
)
async def change_machine(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Change settings and tags, at once also of a machine that is awake. What is absent stays as it is."""
    asked = parse_body(ChangeRequest, await request.body())
    services = services_of(request)
    settings = asked.model_dump(include=asked.model_fields_set - {"tags"})
    for name_of_setting, value in settings.items():
        if value is None and name_of_setting not in ("idle_seconds", "alias"):
            raise InvalidRequest(f"{name_of_setting}: it cannot be null.")
    if asked.memory_mb is not None:
        _check_memory(services, asked.memory_mb)
    in_use_bytes = services.machines.memory_bytes(name)
    await services.ledger.change_machine(
        account, name, settings=settings, tags=asked.tags or {}, in_use_bytes=in_use_bytes
    )
    services.machines.change_settings(name)
    return JsonResponse(machine_detail(await services.ledger.machine(account, name)))


@router.delete(
    "/v1/machine/{name}",
    response_model=models.MachineName,
    responses=refusals(Unauthorized, MachineNotFound),
)
async def delete_machine(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Delete a machine for good: its log, its output, its snapshots."""
    services = services_of(request)
    await services.ledger.delete_machine(account, name)
    await services.machines.discard(name)
    return JsonResponse({"machine_name": name})


async def _transition(
    request: Request, account: str, name: str, move: Callable[[Machines, str], Awaitable[object]]
) -> JsonResponse:
    asked = parse_body(EmptyRequest, await request.body())
    services = services_of(request)

    async def work() -> dict[str, Any]:
        services.stopping.refuse_work()
        await refuse_parked(services, account, name)
        try:
            if await move(services.machines, name) is False:
                raise NotIdle
        except MachineGone:  # parked or deleted meanwhile, which the ledger knows
            await refuse_parked(services, account, name)
            raise
        return machine_detail(await services.ledger.machine(account, name))

    return JsonResponse(await services.once.do(services.ledger, account, idempotency(request, asked), work))


async def refuse_parked(services: Services, account: str, name: str) -> None:
    """Raise `MachineParked` if it is, `MachineNotFound` if it is not the account's."""
    row = await services.ledger.machine(account, name)
    if row.state == "parked":
        raise MachineParked(f"The machine is parked: {row.parked_reason}")


@router.post(
    "/v1/machine/{name}/wake",
    response_model=models.MachineDetail,
    responses=refusals(
        Unauthorized,
        MachineNotFound,
        MachineParked,
        InvalidRequest,
        IdempotencyKeyReused,
        RuntimeQuarantined,
        CannotWake,
        ShuttingDown,
    ),
    openapi_extra=post(EmptyRequest),
)
async def wake_machine(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Wake a machine, and answer when it is awake. Never needed: every instruction does it."""
    return await _transition(request, account, name, lambda machines, it: machines.wake(it))


@router.post(
    "/v1/machine/{name}/sleep",
    response_model=models.MachineDetail,
    responses=refusals(
        Unauthorized,
        MachineNotFound,
        MachineParked,
        NotIdle,
        InvalidRequest,
        IdempotencyKeyReused,
        SaveFailed,
        ShuttingDown,
    ),
    openapi_extra=post(EmptyRequest),
)
async def put_machine_to_sleep(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Put a machine to sleep, and answer when it is. 409 while an instruction is unfinished."""
    return await _transition(request, account, name, lambda machines, it: machines.sleep(it))


@router.post(
    "/v1/machine/{name}/sync",
    response_model=models.MachineDetail,
    responses=refusals(
        Unauthorized, MachineNotFound, MachineParked, InvalidRequest, IdempotencyKeyReused, SaveFailed, ShuttingDown
    ),
    openapi_extra=post(EmptyRequest),
)
async def sync_machine(request: Request, account: AccountOf, name: Name) -> JsonResponse:
    """Save all of a machine now, and answer when that is durable."""
    return await _transition(request, account, name, lambda machines, it: machines.sync(it))
