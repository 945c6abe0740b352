"""The HTTP server: uvicorn with our protocol classes, stopped by us and not by its own signal handlers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from torpor_api.http_protocol import OneWriteProtocol
from torpor_api.websocket_protocol import QuietWebSocketProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that it is they who close them."""
LAST_ANSWERS_SECONDS = 5
WEBSOCKET_LIMIT_BYTES = 8 * 1024 * 1024


class AddressUnusableError(Exception):
    """The server cannot listen there; the message says why."""


class Server(uvicorn.Server):
    """Uvicorn without signal handlers: whoever runs it sets `should_exit`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Take the address, before anything slow is begun. Raises `AddressUnusableError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressUnusableError(f"{host} is not an address of this host: {error.strerror}.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise AddressUnusableError(
            f"The server cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}. "
            "Stop what listens there, or name another address with --listen."
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where clients on this host reach the server."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp) -> Server:
    """One process, no access log, no lifespan: the parts outlive the server."""
    return Server(
        uvicorn.Config(
            app,
            http=OneWriteProtocol,
            ws=QuietWebSocketProtocol,
            ws_max_size=WEBSOCKET_LIMIT_BYTES,
            ws_per_message_deflate=False,
            ws_ping_interval=20,
            ws_ping_timeout=60,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
    )
