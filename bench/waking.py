"""Asleep and new machines over HTTP against plain `runsc`, one and many at once; and what an awake one takes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.server import ServerProcess

from bench.connection import Connection
from bench.floor import Floor
from bench.measurement import Measurement, seconds_of
from torpor_worker.gvisor.memory import MemoryFile

AT_ONCE = 20
RESTORED = "runsc restore into a created sandbox"
ARRAY = "import numpy; noise = numpy.random.default_rng(1).integers(0, 256, 512 << 20, numpy.uint8)"
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and plain `runsc` beside it."""

    server: ServerProcess
    connection: Connection
    floor: Floor

    @property
    def data_dir(self) -> Path:
        """The server's."""
        return self.server.data_dir

    def new_machine(self, template: str = "python", code: str = "1 + 1") -> str:
        """A machine that has run this."""
        machine: str = self.connection.post("/v1/machine/new", {"template": template})["machine_name"]
        self.run(machine, code)
        return machine

    def run(self, machine: str, code: str = "1 + 1", connection: Connection | None = None) -> dict[str, Any]:
        """What the machine answers; an error is a `RuntimeError`."""
        body = {"code": code, "timeout_seconds": 120, "timings": True}
        answer = (connection or self.connection).post(f"/v1/machine/{machine}/run", body)
        if "error" in answer["result"]:
            raise RuntimeError(answer["result"]["error"])
        return answer

    def sleep(self, machine: str) -> None:
        """Let it sleep."""
        self.connection.post(f"/v1/machine/{machine}/sleep")

    def wait_for(self, whose: str, count: int = 1) -> None:
        """Until so many sandboxes wait, `warm` or `spare`; see `torpor_worker.beginnings`."""
        deadline = time.monotonic() + _READY_SECONDS
        while sum(_text(file) == whose for file in self.named()) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"There are no {count} {whose} sandboxes.")
            time.sleep(0.1)
        time.sleep(1)  # until it is attached, and nothing else is being made

    def image(self, machine: str) -> Path:
        """The local image of a machine's last generation; see `torpor_worker.local_images`."""
        return max((self.data_dir / "images" / machine).iterdir(), key=lambda folder: int(folder.name)) / "image"

    def memory_file(self, machine: str) -> MemoryFile:
        """That of the sandbox of an awake machine."""
        (folder,) = (file.parent for file in self.named() if _text(file) == machine)
        return MemoryFile(int((folder / "pid").read_text()))

    def named(self) -> Iterable[Path]:
        """What says, of each sandbox, whose it is."""
        return (self.data_dir / "sandboxes" / "machines").glob("*/machine")


def measure_waking(place: Place, rounds: int) -> list[Measurement]:
    """Wake → result, for three sizes of machines."""
    kinds = [
        ("bare", place.new_machine(), rounds),
        ("data", place.new_machine("data"), rounds),
        ("data + 512 MB", place.new_machine("data", ARRAY), max(3, rounds // 4)),
    ]
    for _, machine, _ in kinds:
        place.sleep(machine)
    measured = []
    for what, machine, its_rounds in kinds:
        image = place.data_dir.parent / f"floor-{machine}"
        shutil.copytree(place.image(machine), image)
        torpor, floor = [], []
        for _ in range(1 + its_rounds):
            place.wait_for("spare")
            torpor.append(seconds_of(partial(place.run, machine)))
            place.sleep(machine)
            place.wait_for("spare")
            floor.append(place.floor.restore_seconds(image))
        shutil.rmtree(image)
        place.connection.delete(f"/v1/machine/{machine}")
        measured.append(Measurement(f"wake and run `1 + 1`: {what}", RESTORED, torpor[1:], floor[1:], 1.2))
    return measured


def measure_waking_at_once(place: Place, rounds: int) -> Measurement:
    """So many wakes at once, until the last one is answered; the first round teaches the pool."""
    machines = [place.new_machine() for _ in range(AT_ONCE)]
    image = place.data_dir.parent / "floor-at-once"
    torpor: list[float] = []
    floor: list[float] = []

    def wake(connection: Connection, number: int) -> None:
        place.run(machines[number], connection=connection)

    with _Callers(place) as callers:
        for _ in range(1 + rounds):
            for machine in machines:
                place.sleep(machine)
            if not image.exists():
                shutil.copytree(place.image(machines[0]), image)
            place.wait_for("spare", AT_ONCE if torpor else 1)
            torpor.append(callers.seconds(wake))
            place.wait_for("spare", AT_ONCE)
            floor.append(place.floor.restore_seconds(image, AT_ONCE))
    for machine in machines:
        place.connection.delete(f"/v1/machine/{machine}")
    return Measurement(f"{AT_ONCE} wakes at once: bare", f"{AT_ONCE} times {RESTORED}", torpor[1:], floor[1:], 1.3)


def measure_new_machines(place: Place, rounds: int) -> Measurement:
    """A new machine → its first result, while one waits."""
    torpor, floor = [], []
    for _ in range(1 + rounds):
        place.wait_for("warm")
        torpor.append(seconds_of(lambda: place.connection.post("/v1/run", {"code": "1 + 1"})))
        _delete_all(place)
        place.wait_for("warm")
        floor.append(place.floor.start_seconds())
    return Measurement("new machine and run `1 + 1`", "runsc run of bare Python", torpor[1:], floor[1:], 0.15)


def measure_new_machines_at_once(place: Place, rounds: int) -> Measurement:
    """So many new machines at once, until the last one is answered; the first round teaches the pool."""
    torpor, floor = [], []
    with _Callers(place) as callers:
        for turn in range(1 + rounds):
            place.wait_for("warm", AT_ONCE if turn else 1)
            torpor.append(callers.seconds(lambda connection, _: connection.post("/v1/run", {"code": "1 + 1"})))
            _delete_all(place)
            place.wait_for("warm", AT_ONCE)
            floor.append(place.floor.start_seconds(AT_ONCE))
    return Measurement(
        f"{AT_ONCE} new machines at once", f"{AT_ONCE} times runsc run of bare Python", torpor[1:], floor[1:], 0.15
    )


def awake_bytes(place: Place) -> tuple[int, int]:
    """What the guest of an awake bare machine uses, and what its sandbox needs beside."""
    machine = place.new_machine()
    memory = place.memory_file(machine)
    used = memory.used_bytes(), memory.overhead_bytes()
    place.connection.delete(f"/v1/machine/{machine}")
    return used


def sleeping_costs(place: Place) -> tuple[int, float]:
    """How many sandboxes are left of machines that were awake and sleep, and what the server holds more for each."""
    machines = [place.new_machine() for _ in range(AT_ONCE)]
    for machine in machines:
        place.sleep(machine)
    place.wait_for("spare")
    slept = place.server.process.memory_info().rss
    more = [place.new_machine() for _ in range(AT_ONCE)]
    for machine in more:
        place.sleep(machine)
    place.wait_for("spare")
    grown = place.server.process.memory_info().rss - slept
    sandboxes = {_text(file) for file in place.named()} & {*machines, *more}
    _delete_all(place)
    return len(sandboxes), grown / AT_ONCE


def _delete_all(place: Place) -> None:
    for machine in place.connection.post("/v1/machine/list")["machines"]:
        place.connection.delete(f"/v1/machine/{machine['name']}")


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


class _Callers:
    """Clients with a thread and a connection each."""

    def __init__(self, place: Place) -> None:
        self._connections = [Connection(place.server.url, place.server.api_key) for _ in range(AT_ONCE)]
        self._threads = ThreadPoolExecutor(AT_ONCE)

    def __enter__(self) -> _Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        for connection in self._connections:
            connection.__exit__(None, None, None)

    def seconds(self, call: Callable[[Connection, int], object]) -> float:
        """From the first call until the last answer."""
        return seconds_of(lambda: list(self._threads.map(call, self._connections, range(AT_ONCE))))
