"""An instruction over HTTP against the same one in a bare Jupyter kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from bench.connection import Connection
from bench.measurement import Measurement, seconds_of

_WARM_UP_ROUNDS = 20


def measure_instructions(connection: Connection, rounds: int) -> list[Measurement]:
    """`1 + 1`, and a line of output."""
    machine = connection.post("/v1/machine/new")["machine_name"]
    manager, kernel = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    try:
        return [_measure(connection, machine, kernel, code, rounds) for code in ("1 + 1", "print('x')")]
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)


def _measure(connection: Connection, machine: str, kernel: BlockingKernelClient, code: str, rounds: int) -> Measurement:
    path = f"/v1/machine/{machine}/run"
    body = {"code": code}

    def run() -> None:
        result = connection.post(path, body)["result"]
        if "error" in result:
            raise RuntimeError(result["error"])

    torpor_seconds, floor_seconds = [], []
    for turn in range(_WARM_UP_ROUNDS + rounds):
        pair = seconds_of(run), seconds_of(_execution(kernel, code))
        if turn >= _WARM_UP_ROUNDS:
            torpor_seconds.append(pair[0])
            floor_seconds.append(pair[1])
    return Measurement(f"run `{code}` over HTTP", "Jupyter kernel", torpor_seconds, floor_seconds, most=0.5)


def _execution(kernel: BlockingKernelClient, code: str) -> Callable[[], None]:
    def execute() -> None:
        """Until the reply is there and the kernel says that it is idle: all output has come by then."""
        message = kernel.execute(code)
        while kernel.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != message:
            pass
        while True:
            heard = kernel.get_iopub_msg(timeout=60)
            ended = heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle"
            if ended and heard["parent_header"].get("msg_id") == message:
                return

    return execute
