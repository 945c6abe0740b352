"""A machine as a plain function, for whatever makes tools of functions."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import torpor

if TYPE_CHECKING:
    from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

PROGRAM = """
import json, sys, torpor
with torpor.Client() as client:
    tools = {tool.__name__: tool for tool in [client.machine("thread-42").tool()]}
    for call in json.loads(sys.argv[1]):
        print(json.dumps(tools[call["name"]](**call["arguments"])))
"""
"""An agent's loop, without the model: it runs what the model calls."""


def answers(server: ServerProcess, *calls: dict[str, Any]) -> list[str]:
    """What the calls of a model are answered with, in a process of their own."""
    asked = json.dumps([{"name": "python", "arguments": arguments} for arguments in calls])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, asked],
        env=server.environment() | {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_plain_tool_goes_on_after_its_machine_slept_and_its_program_was_replaced(server: ServerProcess) -> None:
    first = answers(
        server,
        {"code": "a = 3; print('hello'); a"},
        {"code": "1 / 0"},
        {"code": "while True: pass", "timeout_seconds": 1},
    )
    assert first[0] == "hello\n3"
    assert first[1].endswith("ZeroDivisionError: division by zero")
    assert "TimeoutError: Timed out after 1 s" in first[2]
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.machine("thread-42", create=False)
        machine.sleep()
        assert machine.detail().state == "asleep"
        assert answers(server, {"code": "a + 5"}) == ["8"]
        assert next(machine.history()).code == "a + 5"
        assert len(client.machines()) == 1
