"""Streams of a machine that somebody deletes meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.api import Api

NDJSON = {"Accept": "application/x-ndjson"}
SSE = {"Accept": "text/event-stream"}
CODE = {"code": "print('begun'); hang()"}
COMMAND = {"command": "echo begun; hang"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "run", CODE, NDJSON),
        ("POST", "run", CODE, SSE),
        ("POST", "commands", COMMAND, NDJSON),
        ("POST", "commands", COMMAND, SSE),
        ("GET", "exec/0/events", None, NDJSON),
        ("GET", "exec/0/events", None, SSE),
        ("GET", "exec/0/stream-result", None, {}),
    ],
)
async def test_a_stream_ends_with_its_machine_and_the_server_has_nothing_to_complain_of(
    live: Api, caplog: pytest.LogCaptureFixture, method: str, path: str, body: dict[str, Any] | None, headers: Any
) -> None:
    machine = await live.new_machine()
    if body is None:
        await live.execute(machine, CODE["code"])

    async with live.client.stream(method, f"/v1/machine/{machine}/{path}", json=body, headers=headers) as stream:
        lines = [line async for line in _deleting(live, machine, stream.aiter_lines())]

    assert "begun" in "".join(lines)
    assert not any('"result"' in line for line in lines)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    again = await live.client.get(f"/v1/machine/{machine}/exec/0/events")
    assert (again.status_code, json.loads(again.text)["code"]) == (404, "machine_not_found")


async def _deleting(live: Api, machine: str, lines: Any) -> Any:
    """The lines of a stream whose machine is deleted as soon as something has come."""
    is_there = True
    async for line in lines:
        if is_there and line.strip():
            is_there = False
            assert (await live.client.delete(f"/v1/machine/{machine}")).status_code == 200
        yield line
