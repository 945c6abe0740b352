"""The API over a real ledger, the real worker, and sandboxes that are none."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp

from torpor_api.app import create_app
from torpor_api.config import Config
from torpor_api.ledger import SqlLedger
from torpor_api.server import Server, bind, make_server, url_of
from torpor_api.services import Services
from torpor_api.websocket_protocol import QuietWebSocketProtocol
from torpor_worker.bodies import Bodies, BodyLimits
from torpor_worker.config import WorkerConfig
from torpor_worker.fake_host import FakeSandboxHost
from torpor_worker.local_images import LocalImages
from torpor_worker.memory_snapshotter import MemorySnapshotter
from torpor_worker.metrics import Metrics
from torpor_worker.worker import Worker

KEY = "alice.0123456789abcdef"
OTHER_KEY = "bob.0123456789abcdef"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
OUTPUT_LIMIT_BYTES = 100_000


@dataclass(frozen=True)
class Api:
    """An application over a real ledger, and a client of Alice's."""

    app: ASGIApp
    services: Services
    client: httpx2.AsyncClient
    snapshotter: MemorySnapshotter
    images: LocalImages
    server: Server | None = None

    def websocket_protocols(self) -> list[QuietWebSocketProtocol]:
        """The WebSocket connections of the server."""
        assert self.server is not None
        connections = self.server.server_state.connections
        return [connection for connection in connections if isinstance(connection, QuietWebSocketProtocol)]

    async def new_machine(self) -> str:
        answer = await self.client.post("/v1/machine/new", json={})
        name: str = answer.json()["machine_name"]
        return name

    async def recover(self, machine: str) -> None:
        """Let the machine's process die behind an instruction that was not saved, so that it leaves a notice."""
        for code in ("a = 1", "die()"):
            seq = await self.execute(machine, code)
            await self.client.get(f"/v1/machine/{machine}/exec/{seq}/result")

    async def execute(self, machine: str, code: str) -> int:
        answer = await self.client.post(f"/v1/machine/{machine}/exec", json={"instruction": {"code": code}})
        seq: int = answer.json()["instruction_seq"]
        return seq


@asynccontextmanager
async def application(
    folder: Path, database: Path | None = None, limits: BodyLimits | None = None, **settings: Any
) -> AsyncIterator[Api]:
    """The application, called without a network; `database` is one to begin with, made by `new_database`.

    `settings` are those of `torpor serve`, in small letters.
    """
    if database is not None:
        shutil.copy(database, folder / "torpor.db")
    ledger = await SqlLedger.open(f"sqlite:///{folder / 'torpor.db'}", folder, output_limit_bytes=OUTPUT_LIMIT_BYTES)
    for key in (KEY, OTHER_KEY):
        account, _, secret = key.partition(".")
        await ledger.create_account(account)
        await ledger.add_key(account, secret)
    host = FakeSandboxHost()
    images = LocalImages(folder / "images", 1024**3)
    config = WorkerConfig(quiet_save_seconds=3600, retry_seconds=0.01)
    metrics = Metrics()
    snapshotter = MemorySnapshotter()
    bodies = Bodies(folder / "files", limits)
    worker = Worker(ledger, host, snapshotter, images, config, metrics=metrics, bodies=bodies)
    await worker.start()
    services = Services(ledger=ledger, machines=worker, config=Config(data_dir=folder, **settings), metrics=metrics)
    app = create_app(services)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://torpor", headers=AUTHORIZATION) as client:
        yield Api(app, services, client, snapshotter, images)
    services.end_waits()
    await worker.drain(60)
    await host.close()
    await ledger.close()


@asynccontextmanager
async def behind_a_server(api: Api) -> AsyncIterator[Api]:
    """The same application on the loopback, for what needs a connection."""
    with bind("127.0.0.1", 0) as listener:
        server = make_server(api.app)
        serving = asyncio.create_task(server.serve([listener]))
        async with httpx2.AsyncClient(base_url=url_of(listener), headers=AUTHORIZATION, timeout=60) as client:
            await _until_it_listens(listener)
            yield Api(api.app, api.services, client, api.snapshotter, api.images, server)
        api.services.end_waits()
        server.should_exit = True
        await serving


async def new_database(path: Path) -> None:
    """A database with all its tables, which takes a while to make."""
    ledger = await SqlLedger.open(f"sqlite:///{path}", path.parent)
    await ledger.close()


async def _until_it_listens(listener: socket.socket) -> None:
    async with asyncio.timeout(60):
        while not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
