"""Part 1's WebSocket: instructions in, output lines and results out, in order. A busy machine queues."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from torpor_api.authentication import account_of_websocket
from torpor_api.bodies import parse_json, validate
from torpor_api.encoding import JsonResponse, to_json
from torpor_api.errors import InvalidRequest, TorporError
from torpor_api.exception_handlers import error_body, known_error, log_error, new_error_id
from torpor_api.instructions import end, stdin_of, submit, timeout_of
from torpor_api.ledger import Accepted, Notice
from torpor_api.models import NewMachineRequest, WebSocketExec, WebSocketFollow, WebSocketInterrupt
from torpor_api.names import machine_named
from torpor_api.routes.machines import create
from torpor_api.services import Services, services_of
from torpor_api.streams import messages

SERVICE_RESTART = 1012
UNANSWERED_LIMIT = 64
"""How many instructions of one connection may wait for their answers before no more are read from it."""

WARNINGS = frozenset({"differed", "effects_lost", "save_failed"})
"""Codes of notices that deserve more than `info`."""


async def repl(websocket: WebSocket) -> None:
    """Serve one connection to a machine, or to a new one."""
    services = services_of(websocket)
    try:
        account = await account_of_websocket(websocket)
        machine = await _machine(services, account, websocket.path_params["name"])
    except TorporError as error:
        await websocket.send_denial_response(_denial(error, websocket))
        return
    await websocket.accept()
    connection = Connection(websocket, services, account, machine)
    try:
        await connection.serve()
    except* WebSocketDisconnect:
        pass


async def _machine(services: Services, account: str, name: str) -> str:
    if name == "new":
        name, _ = await create(services, account, NewMachineRequest())
        return name
    services.stopping.refuse_work()
    return (await services.ledger.machine(account, await machine_named(services.ledger, account, name))).name


def _denial(error: TorporError, websocket: WebSocket) -> JsonResponse:
    error_id = new_error_id()
    log_error(error, error, error_id, method="WEBSOCKET", path=websocket.url.path)
    return JsonResponse(error_body(error, error_id), status_code=error.status)


class Connection:
    """One client on one machine: a reader that accepts, and a writer that answers in order of acceptance."""

    def __init__(self, websocket: WebSocket, services: Services, account: str, machine: str) -> None:
        self._websocket = websocket
        self._services = services
        self._account = account
        self._machine = machine
        self._unanswered: asyncio.Queue[int] = asyncio.Queue(UNANSWERED_LIMIT)

    async def serve(self) -> None:
        """Talk until the client hangs up or the server stops. Instructions go on without the client."""
        await self._send({"type": "connected", "machine_name": self._machine})
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(), name=f"repl writer {self._machine}")
            try:
                await self._read()
            finally:
                writer.cancel()

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            try:
                seq = await self._take(parse_json(message.get("bytes", b"") if text is None else text))
            except Exception as error:  # whatever it was, the client is told, and the connection lives on
                await self._send_error(error)
            else:
                if seq is not None:
                    await self._unanswered.put(seq)

    async def _take(self, said: Any) -> int | None:
        """Do what a message says; the instruction that is to be told of then."""
        match said:
            case {"type": "interrupt"}:
                await self._interrupt(validate(WebSocketInterrupt, said))
                return None
            case {"type": "follow"}:
                seq = validate(WebSocketFollow, said).seq
                await self._services.ledger.instruction(self._account, self._machine, seq)
                return seq
            case _:
                return await self._accept(validate(WebSocketExec, said))

    async def _interrupt(self, asked: WebSocketInterrupt) -> None:
        seq = await end(self._services, self._account, self._machine, asked.seq)
        await self._send({"type": "interrupted", "seq": seq, "request_id": asked.request_id})

    async def _accept(self, asked: WebSocketExec) -> int:
        outcome, _ = await submit(
            self._services,
            self._account,
            self._machine,
            asked.instruction.code,
            timeout_of(self._services, asked.instruction.timeout_seconds, "instruction.timeout_seconds"),
            when_busy="interrupt" if asked.interrupt else "queue",
            stdin=stdin_of(asked.instruction),
        )
        if not isinstance(outcome, Accepted):
            raise InvalidRequest
        await self._send({"type": "exec_received", "seq": outcome.seq, "request_id": asked.request_id})
        return outcome.seq

    async def _write(self) -> None:
        while True:
            seq = await self._unanswered.get()
            try:
                await self._answer(seq)
            except TorporError as error:
                await self._send_error(error)
            if self._services.stopping.over:
                await self._websocket.close(SERVICE_RESTART)
                return

    async def _answer(self, seq: int) -> None:
        async for batch in messages(self._services, self._account, self._machine, seq):
            for message in batch:
                if message["type"] == "result":
                    await self._tell_notices()
                await self._send(message)

    async def _tell_notices(self) -> None:
        notices = await self._services.ledger.read_notices(self._machine)
        for notice in notices:
            await self._send({"type": "message", "message": notice.message, "level": _level(notice)})
        if notices:
            await self._services.ledger.deliver_notices(self._machine, notices[-1].id)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._websocket.send({"type": "websocket.send", "text": to_json(message).decode("ascii")})

    async def _send_error(self, error: Exception) -> None:
        if isinstance(error, WebSocketDisconnect):
            raise error
        told = known_error(error)
        error_id = new_error_id()
        log_error(error, told, error_id, method="WEBSOCKET", machine=self._machine)
        await self._send({"type": "error", **error_body(told, error_id)})


def _level(notice: Notice) -> str:
    return "warn" if notice.code in WARNINGS else "info"
