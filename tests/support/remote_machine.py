"""A machine as its user sees it, for tests that kill servers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.server import ServerProcess


class Machine:
    """A machine, through the public API, over restarts of its server."""

    def __init__(self, server: ServerProcess, name: str | None = None) -> None:
        """Without a name, a new one."""
        self._server = server
        self.name: str = self.post("new")["machine_name"] if name is None else name

    def run(self, code: str) -> Any:
        """The value of an instruction, as a Python literal; fails the test on an error."""
        result = self.post(f"{self.name}/run", {"code": code, "timeout_seconds": 120})["result"]
        assert "error" not in result, result["error"]
        return result["value"]

    def begin(self, code: str) -> int:
        """The seq of an instruction that was accepted; it may not have started."""
        seq: int = self.post(f"{self.name}/exec", {"instruction": {"code": code, "timeout_seconds": 300}})[
            "instruction_seq"
        ]
        return seq

    def result(self, seq: int) -> dict[str, Any]:
        """The result of an instruction; waits for it."""
        with self._server.client() as client:
            answer = client.get(f"/v1/machine/{self.name}/exec/{seq}/result")
        assert answer.is_success, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    def lines(self, seq: int) -> Iterator[str]:
        """The lines of an instruction's output from its beginning, as they come, until its result."""
        with (
            self._server.client() as client,
            client.stream("GET", f"/v1/machine/{self.name}/exec/{seq}/stream-result") as answer,
        ):
            for line in answer.iter_lines():
                if line.strip() and (message := json.loads(line))["type"] == "output":
                    yield message["chunk"]["data"]

    def detail(self) -> dict[str, Any]:
        """What the server says of it; reading does not wake it."""
        with self._server.client() as client:
            answer = client.get(f"/v1/machine/{self.name}")
        assert answer.is_success, answer.text
        detail: dict[str, Any] = answer.json()
        return detail

    def sleep(self) -> None:
        """Put it to sleep; returns when nothing of it runs."""
        self.post(f"{self.name}/sleep")
        until(lambda: not self._server.holds(self.name), "the sandbox to be gone")

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._server.client() as client:
            answer = client.post(f"/v1/machine/{path}", json=body or {})
        assert answer.is_success, answer.text
        content: dict[str, Any] = answer.json()
        return content


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
