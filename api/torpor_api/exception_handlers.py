"""Every error as `{"code", "id", "message", "hint"?}`, with the id in the log."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from torpor_api.bodies import sentence
from torpor_api.encoding import JsonResponse
from torpor_api.errors import (
    CannotWake,
    InternalError,
    InvalidRequest,
    MachineNotFound,
    MethodNotAllowed,
    NotFound,
    RuntimeQuarantined,
    SaveFailed,
    ShuttingDown,
    TorporError,
)
from torpor_worker import errors as worker_errors

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 2
CLIENT_CLOSED_REQUEST = 499


OF_THE_WORKER: dict[type[worker_errors.WorkerError], type[TorporError]] = {
    worker_errors.SaveRefused: SaveFailed,
    worker_errors.CannotWake: CannotWake,
    worker_errors.Quarantined: RuntimeQuarantined,
    worker_errors.MachineGone: MachineNotFound,
    worker_errors.Draining: ShuttingDown,
}


def new_error_id() -> str:
    """An id to find one error in the log by."""
    return secrets.token_hex(8)


def error_body(error: TorporError, error_id: str) -> dict[str, Any]:
    """What a client is told."""
    body: dict[str, Any] = {"code": error.code, "id": error_id, "message": str(error)}
    if error.hint is not None:
        body["hint"] = error.hint
    return body


def known_error(error: Exception) -> TorporError:
    """The error of our closed list that an exception is answered with; `InternalError` for all that is unforeseen."""
    if isinstance(error, TorporError):
        return error
    if isinstance(error, worker_errors.WorkerError):
        return OF_THE_WORKER.get(type(error), InternalError)(str(error))
    if isinstance(error, RequestValidationError):
        return InvalidRequest(sentence(error.errors(), leave_out=("query", "path", "header", "body")))
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND:
            return NotFound()
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return MethodNotAllowed()
        return InvalidRequest(f"body: {error.detail}.")
    return InternalError()


def log_error(error: Exception, told: TorporError, error_id: str, **fields: Any) -> None:
    """Write what happened to the log: unforeseen errors with their traceback, refusals shortly."""
    if isinstance(told, InternalError) and not isinstance(error, TorporError):
        log.error("A request failed for a reason that was not foreseen.", id=error_id, exc_info=error, **fields)
    else:
        log.info("A request was refused.", id=error_id, code=told.code, reason=str(told), **fields)


def error_response(error: Exception, *, method: str, path: str, headers: dict[str, str] | None = None) -> Response:
    """Answer an exception, and log it."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    told = known_error(error)
    error_id = new_error_id()
    log_error(error, told, error_id, method=method, path=path)
    headers = {**(headers or {}), "Torpor-Error": told.code}
    if told.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if told.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonResponse(error_body(told, error_id), status_code=told.status, headers=headers)


async def _handle(request: Request, error: Exception) -> Response:
    allow = getattr(error, "headers", None) if isinstance(error, HTTPException) else None
    return error_response(error, method=request.method, path=request.url.path, headers=allow)


def install(app: FastAPI) -> None:
    """Make the application answer every exception in this form."""
    for kind in (TorporError, worker_errors.WorkerError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, _handle)
