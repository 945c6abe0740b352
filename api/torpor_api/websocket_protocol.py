"""Uvicorn's WebSocket protocol, without pings for those who cannot bear them."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

SDK_HEADER = "x-forevervm-sdk"


class QuietWebSocketProtocol(WebSocketsSansIOProtocol):
    """No pings to ForeverVM's Rust SDK: it takes every frame for a message, and fails."""

    def handle_connect(self, event: Request) -> None:
        """Start a connection."""
        if event.headers.get(SDK_HEADER) == "rust":
            self.ping_interval = None
        super().handle_connect(event)
