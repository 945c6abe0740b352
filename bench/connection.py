"""The cheapest HTTP client there is, so that the server is measured and not the client."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class Connection:
    """One connection, kept alive; a request is one packet, an answer is read to its length."""

    def __init__(self, url: str, api_key: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._api_key = api_key
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a POST. Raises `RuntimeError` if it is not a success."""
        return self._request("POST", path, json.dumps(body or {}).encode())

    def delete(self, path: str) -> None:
        """Make a DELETE. Raises `RuntimeError` if it is not a success."""
        self._request("DELETE", path, b"")

    def _request(self, method: str, path: str, content: bytes) -> dict[str, Any]:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + content)
        return self._answer(path)

    def _answer(self, path: str) -> dict[str, Any]:
        while b"\r\n\r\n" not in self._rest:
            self._receive()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        length = int(fields.get("content-length", 0))
        while len(self._rest) < length:
            self._receive()
        body, self._rest = self._rest[:length], self._rest[length:]
        if not status_line.split(" ", 2)[1].startswith("2"):
            raise RuntimeError(f"{path}: {status_line}: {body.decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(body) if body else {}
        return answer

    def _receive(self) -> None:
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise RuntimeError("The server closed the connection.")
        self._rest += piece
