"""New machines and their templates, through the server."""

from __future__ import annotations

import time
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

PATIENCE_SECONDS = 120
RANDOM = "import os, random, uuid; [random.random(), os.urandom(4).hex(), uuid.uuid4().hex]"


def run_new(client: httpx2.Client, code: str, **more: Any) -> dict[str, Any]:
    """What a new machine answers to its first instruction."""
    answer = client.post("/v1/run", json={"code": code, "timeout_seconds": 60, **more})
    assert answer.is_success, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


def until(condition: Callable[[], object], server: ServerProcess) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, server.log[-4000:]
        time.sleep(0.05)


def made(server: ServerProcess, template: str) -> bool:
    """Whether the template is whole."""
    return any((server.data_dir / "templates").glob(f"{template}-*/*/stored.json"))


def test_machines_are_there_before_their_templates_and_after(server: ServerProcess) -> None:
    with server.client() as client:
        assert run_new(client, "1 + 1")["result"]["value"] == "2"
        until(lambda: server.held().count("warm") == 2, server)
        one, other = (run_new(client, RANDOM) for _ in range(2))
        assert not set(literal_eval(one["result"]["value"])) & set(literal_eval(other["result"]["value"]))
        assert client.get(f"/v1/machine/{one['machine']}").json()["template"] == "python"

        loaded = "import sys; 'pandas' in sys.modules"
        early = run_new(client, loaded, template="data")
        assert client.get(f"/v1/machine/{early['machine']}").json()["template"] == "data"
        until(lambda: made(server, "data"), server)
        assert run_new(client, loaded, template="data")["result"]["value"] == "True"


def test_a_machine_that_began_with_a_template_comes_back_from_its_log_after_a_kill(server: ServerProcess) -> None:
    with server.client() as client:
        until(lambda: server.held().count("warm") == 2, server)
        machine = run_new(client, "import random; first = random.random(); first")
        server.kill_all()
        server.start()
        again = client.post(f"/v1/machine/{machine['machine']}/run", json={"code": "first"}).json()
    assert again["result"]["value"] == machine["result"]["value"]
