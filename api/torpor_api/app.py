"""The application factory."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp

from torpor_api import documentation, edge, exception_handlers
from torpor_api.mounts import Mount, routes
from torpor_api.routes import (
    accounts,
    commands,
    completion,
    files,
    health,
    instructions,
    keys,
    machines,
    packages,
    recovery,
    run,
    snapshots,
)
from torpor_api.services import Services
from torpor_api.websocket import repl

DESCRIPTION = """
A machine is a Python interpreter that is always there: its variables, threads and files outlive every process.
The first part of this API is ForeverVM's, byte for byte; the rest is Torpor's own. Every refusal has the same form:
`{"code", "id", "message", "hint"?}`.
"""


def create_app(services: Services, mounted: Iterable[Mount] = ()) -> ASGIApp:
    """The API over these services, which outlive it, with other applications beside it."""
    app = FastAPI(
        title="Torpor",
        version=version("torpor-server"),
        summary="Python machines that are always there.",
        description=DESCRIPTION,
        redirect_slashes=False,
    )
    app.state.services = services
    app.router.routes.extend(run.routes())
    app.router.routes.append(WebSocketRoute("/v1/machine/{name}/repl", repl))
    app.router.routes.extend(routes(mounted))
    for router in (
        instructions.router,
        commands.router,
        completion.router,
        machines.router,
        snapshots.router,
        files.router,
        packages.router,
        recovery.router,
        accounts.router,
        keys.router,
        health.router,
    ):
        app.include_router(router)
    edge.install(app)
    exception_handlers.install(app)
    documentation.install(app, run.operations())
    return run.Shortcut(app)
