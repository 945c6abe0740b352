"""What the OpenAPI document says beyond what FastAPI reads off the routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from torpor_api import models, models_commands, models_packages, models_stdin
from torpor_api.errors import TorporError

REQUESTS: tuple[type[BaseModel], ...] = (
    models.NewMachineRequest,
    models.ChangeRequest,
    models.CompleteRequest,
    models.NewKeyRequest,
    models.ListRequest,
    models.ExecRequest,
    models.RunRequest,
    models.RunNewRequest,
    models.InterruptRequest,
    models.EmptyRequest,
    models.RollbackRequest,
    models.ForkRequest,
    models.RecoverRequest,
    models_stdin.StdinRequest,
    models_commands.CommandRequest,
    models_commands.CommandInputRequest,
    models_commands.CommandSignalRequest,
    models_packages.PackagesRequest,
    models_commands.TerminalSize,
)
ANSWERS: tuple[type[BaseModel], ...] = (models.RunAnswer, models.Error)
REFERENCE = "#/components/schemas/{model}"

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeat within a day joins the same work and gets its answer.",
    "schema": {"type": "string", "maxLength": 255},
}


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model's schema."""
    return {"$ref": REFERENCE.format(model=model.__name__)}


def request_body(model: type[BaseModel], *, required: bool = False) -> dict[str, Any]:
    """The part of an operation that describes its body."""
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": reference(model)}}},
    }


def post(model: type[BaseModel], *, required: bool = False, repeatable: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a POST: its body, and its idempotency key."""
    extra = request_body(model, required=required)
    if repeatable:
        extra["parameters"] = [IDEMPOTENCY_KEY]
    return extra


def refusals(*errors: type[TorporError]) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: the errors that it may answer with."""
    codes: dict[int, list[str]] = {}
    for error in errors:
        codes.setdefault(error.status, []).append(error.code)
    return {
        status: {"model": models.Error, "description": ", ".join(f"`{code}`" for code in sorted(names))}
        for status, names in sorted(codes.items())
    }


def install(app: FastAPI, operations: dict[str, Any]) -> None:
    """Give the application its OpenAPI document; `operations` are of routes that FastAPI does not know, by path."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, operations)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _document(app: FastAPI, operations: dict[str, Any]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    document["paths"].update(operations)
    _, definitions = models_json_schema(
        [*((model, "validation") for model in REQUESTS), *((model, "serialization") for model in ANSWERS)],
        ref_template=REFERENCE,
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "<account>.<secret>"}}
    document["security"] = [{"key": []}]
    return document
