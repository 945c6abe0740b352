"""An instruction over HTTP against the same one in a bare Jupyter kernel."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from bench.connection import Connection
from bench.measurement import Measurement, Statistic, seconds_of

A_FEW_MILLISECONDS = 5.0
"""By so much another machine's save may delay an instruction."""
_BATCH = 10
"""Calls of one kind in a row: few, so that noise meets both, and more than one, so that each finds its own warm."""
_WARM_UP_BATCHES = 3
_DIRTY_BYTES = 50_000_000


def measure_instructions(connection: Connection, another: Connection, rounds: int) -> list[Measurement]:
    """`1 + 1` and a line of output, alone and while another machine is saved, which `another` is used for."""
    machine = connection.post("/v1/machine/new")["machine_name"]
    with _kernel() as kernel:
        alone = [_measure(connection, machine, kernel, code, rounds) for code in ("1 + 1", "print('x')")]
        with _saving(another):
            beside = _measure(
                connection,
                machine,
                kernel,
                "1 + 1",
                rounds,
                where=", another machine being saved",
                most=1.0,
                statistic="99th percentile",
            )
    connection.delete(f"/v1/machine/{machine}")
    later = Measurement(
        "run `1 + 1` over HTTP, another machine being saved",
        "the same machine's alone",
        beside.torpor_seconds,
        alone[0].torpor_seconds,
        A_FEW_MILLISECONDS,
        "99th percentile",
        "difference",
    )
    return [*alone, beside, later]


def _measure(
    connection: Connection,
    machine: str,
    kernel: BlockingKernelClient,
    code: str,
    rounds: int,
    *,
    where: str = "",
    most: float = 0.35,
    statistic: Statistic = "median",
) -> Measurement:
    path = f"/v1/machine/{machine}/run"
    body = {"code": code}

    def run() -> None:
        _check(connection.post(path, body))

    torpor_seconds: list[float] = []
    floor_seconds: list[float] = []
    execute = _execution(kernel, code)
    for batch in range(_WARM_UP_BATCHES + rounds // _BATCH):
        torpor = [seconds_of(run) for _ in range(_BATCH)]
        floor = [seconds_of(execute) for _ in range(_BATCH)]
        if batch >= _WARM_UP_BATCHES:
            torpor_seconds += torpor
            floor_seconds += floor
    what = f"run `{code}` over HTTP{where}"
    return Measurement(what, "Jupyter kernel", torpor_seconds, floor_seconds, most, statistic)


@contextmanager
def _kernel() -> Iterator[BlockingKernelClient]:
    manager, kernel = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    try:
        yield kernel
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)


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


@contextmanager
def _saving(connection: Connection) -> Iterator[None]:
    """Meanwhile a machine gets new random data and is saved, again and again."""
    machine = connection.post("/v1/machine/new")["machine_name"]
    path = f"/v1/machine/{machine}"
    over = threading.Event()
    failures: list[BaseException] = []

    def save_once() -> None:
        code = f"import random; block = random.randbytes({_DIRTY_BYTES})"
        _check(connection.post(f"{path}/run", {"code": code, "timeout_seconds": 120}))
        connection.post(f"{path}/sync")

    def save() -> None:
        try:
            while not over.is_set():
                save_once()
        except BaseException as failure:  # whoever measures must hear of it
            failures.append(failure)

    save_once()
    thread = threading.Thread(target=save, name="saving")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]
    connection.delete(path)


def _check(answer: dict[str, Any]) -> None:
    if "error" in answer["result"]:
        raise RuntimeError(answer["result"]["error"])
