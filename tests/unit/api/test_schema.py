"""The OpenAPI document is whole, and no request made from it is answered with 500."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.openapi import from_url
from tests.support.api import AUTHORIZATION, Api, application, behind_a_server

EXAMPLES = 12


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a thread of its own, since schemathesis calls without asyncio."""
    ready: SimpleQueue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def serve(folder: Path) -> None:
        done = asyncio.Event()
        # What is generated may be code that never ends, with the longest time-out.
        async with application(folder, timeout_maximum_seconds=20) as api, behind_a_server(api) as live:
            ready.put((str(live.client.base_url), asyncio.get_running_loop(), done))
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve(tmp_path_factory.mktemp("schema"))))
    thread.start()
    url, loop, done = ready.get(timeout=60)
    yield url.rstrip("/")
    loop.call_soon_threadsafe(done.set)
    thread.join(60)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_with_500(url: str, mode: GenerationMode) -> None:
    machine = httpx2.post(f"{url}/v1/machine/new", headers=AUTHORIZATION).json()["machine_name"]
    httpx2.post(f"{url}/v1/machine/{machine}/run", json={"code": "1"}, headers=AUTHORIZATION)
    for operation in from_url(f"{url}/openapi.json").get_all_operations():
        _check(operation.ok(), mode, machine)


def _check(operation: Any, mode: GenerationMode, machine: str) -> None:
    """Call an operation with generated requests, each on the machine as well as on whatever was generated."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), on_the_machine=st.booleans())
    def check(case: schemathesis.Case, on_the_machine: bool) -> None:
        if on_the_machine and "name" in case.path_parameters and operation.method != "delete":
            case.path_parameters["name"] = machine
        answer = case.call(headers=AUTHORIZATION, timeout=60)
        assert answer.status_code < 500 or answer.status_code == 503, answer.text

    try:
        check()
    except Unsatisfiable:  # nothing about this operation can be wrong
        return


async def test_every_route_of_the_api_is_in_the_document(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    operations = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert operations == {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/v1/whoami"),
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("DELETE", "/v1/keys/{key}"),
        ("POST", "/v1/machine/new"),
        ("GET", "/v1/machine/list"),
        ("POST", "/v1/machine/list"),
        ("GET", "/v1/machine/{name}"),
        ("PUT", "/v1/machine/{alias}"),
        ("PATCH", "/v1/machine/{name}"),
        ("DELETE", "/v1/machine/{name}"),
        ("POST", "/v1/machine/{name}/exec"),
        ("GET", "/v1/machine/{name}/exec"),
        ("GET", "/v1/machine/{name}/exec/{seq}"),
        ("GET", "/v1/machine/{name}/exec/{seq}/result"),
        ("GET", "/v1/machine/{name}/exec/{seq}/stream-result"),
        ("GET", "/v1/machine/{name}/exec/{seq}/events"),
        ("POST", "/v1/machine/{name}/exec/{seq}/stdin"),
        ("POST", "/v1/machine/{name}/complete"),
        ("POST", "/v1/machine/{name}/interrupt"),
        ("POST", "/v1/machine/{name}/run"),
        ("POST", "/v1/machine/{name}/sleep"),
        ("POST", "/v1/machine/{name}/wake"),
        ("POST", "/v1/machine/{name}/sync"),
        ("POST", "/v1/run"),
        ("GET", "/v1/machine/{name}/snapshots"),
        ("PUT", "/v1/machine/{name}/snapshots/{generation}/pin"),
        ("DELETE", "/v1/machine/{name}/snapshots/{generation}/pin"),
        ("POST", "/v1/machine/{name}/rollback"),
        ("POST", "/v1/machine/{name}/fork"),
        ("GET", "/v1/machine/{name}/files"),
        ("HEAD", "/v1/machine/{name}/files/{path}"),
        ("GET", "/v1/machine/{name}/files/{path}"),
        ("PUT", "/v1/machine/{name}/files/{path}"),
        ("DELETE", "/v1/machine/{name}/files/{path}"),
        ("POST", "/v1/machine/{name}/recover"),
        ("POST", "/v1/machine/{name}/debug/crash"),
        ("POST", "/v1/machine/{name}/commands"),
        ("GET", "/v1/machine/{name}/commands"),
        ("POST", "/v1/machine/{name}/commands/{seq}/stdin"),
        ("POST", "/v1/machine/{name}/commands/{seq}/signal"),
        ("POST", "/v1/machine/{name}/commands/{seq}/resize"),
        ("POST", "/v1/machine/{name}/packages"),
    }


async def test_every_reference_in_the_document_leads_somewhere(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    references = set(_references(document))

    assert references
    for reference in references:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)
