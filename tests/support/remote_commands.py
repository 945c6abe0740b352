"""Commands of a machine on a real server, over HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.server import ServerProcess

PATIENCE_SECONDS = 90


class Commands:
    """What the API has for the commands of one machine."""

    def __init__(self, server: ServerProcess, machine: str) -> None:
        self._server = server
        self._machine = machine

    def post(self, path: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request that must succeed."""
        with self._server.client() as client:
            answer = client.post(f"/v1/machine/{self._machine}/commands{path}", json=body or {})
        assert answer.is_success, answer.text
        done: dict[str, Any] = answer.json()
        return done

    def run(self, command: str | list[str], **asked: Any) -> dict[str, Any]:
        """Execute, and wait for the end."""
        return self.post("", {"command": command, **asked})

    def start(self, command: str | list[str], **asked: Any) -> int:
        """Execute in the background; its seq."""
        seq: int = self.post("", {"command": command, "background": True, **asked})["seq"]
        return seq

    def listed(self) -> list[dict[str, Any]]:
        """All of them, those that run first."""
        with self._server.client() as client:
            commands: list[dict[str, Any]] = client.get(f"/v1/machine/{self._machine}/commands").json()["commands"]
        return commands

    def one(self, seq: int) -> dict[str, Any]:
        """One of them."""
        return next(command for command in self.listed() if command["seq"] == seq)

    def said(self, seq: int, kind: str = "stdout") -> str:
        """What one has said so far."""
        with self._server.client() as client:
            answer = client.get(f"/v1/machine/{self._machine}/exec/{seq}").json()
        return "".join(event["text"] for event in answer["events"] if event["type"] == kind)

    def until_said(self, seq: int, text: str) -> None:
        """Wait until one has said something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said(seq):
            assert time.monotonic() < deadline, self.said(seq)
            time.sleep(0.05)

    def followed(self, seq: int) -> list[dict[str, Any]]:
        """All events of one up to its end."""
        with self._server.client() as client:
            path = f"/v1/machine/{self._machine}/exec/{seq}/events"
            with client.stream("GET", path, headers={"Accept": "application/x-ndjson"}) as answer:
                return [json.loads(line) for line in answer.iter_lines() if line.strip()]
