"""What the SDK adds to a call: its `run` against the same request by the HTTP client that it is built on."""

from __future__ import annotations

import httpx2
from tests.support.server import ServerProcess

import torpor
from bench.measurement import Measurement, seconds_of

CODE = "1 + 1"
VALUE = "2"
MOST_MILLISECONDS = 1.0
_BATCH = 10
"""Calls of one kind in a row, as in `bench/instructions.py`."""
_WARM_UP_BATCHES = 3


def measure_client(server: ServerProcess, rounds: int) -> Measurement:
    """`machine.run`, with its idempotency key, retries and records, and a bare POST, on one machine of one server."""
    sdk_seconds: list[float] = []
    bare_seconds: list[float] = []
    with (
        torpor.Client(url=server.url, api_key=server.api_key) as client,
        httpx2.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}, trust_env=False
        ) as bare,
    ):
        machine = client.new_machine(idle_seconds=None)
        path, body = f"/v1/machine/{machine.name}/run", {"code": CODE}

        def run() -> None:
            _check(machine.run(CODE).value)

        def post() -> None:
            _check(bare.post(path, json=body).raise_for_status().json()["result"]["value"])

        for batch in range(_WARM_UP_BATCHES + rounds // _BATCH):
            sdk = [seconds_of(run) for _ in range(_BATCH)]
            floor = [seconds_of(post) for _ in range(_BATCH)]
            if batch >= _WARM_UP_BATCHES:
                sdk_seconds += sdk
                bare_seconds += floor
        machine.delete()
    return Measurement(
        f"run `{CODE}` by the SDK",
        "httpx2 alone",
        sdk_seconds,
        bare_seconds,
        MOST_MILLISECONDS,
        compared="difference",
    )


def _check(value: str | None) -> None:
    if value != VALUE:
        raise RuntimeError(f"{CODE} gave {value}.")
