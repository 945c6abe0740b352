"""Start a server of its own, measure, print tables: what was measured until then, if it is interrupted."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from rich.console import Console, RenderableType
from rich.status import Status
from tests.support.server import ServerProcess

from bench.client import measure_client
from bench.cold import measure_cold_waking
from bench.command_line import measure_command_line
from bench.connection import Connection
from bench.floor import Floor
from bench.forks import measure_forks
from bench.instructions import measure_instructions
from bench.measurement import Measurement, seconds_of, table
from bench.settling import wait_until_settled
from bench.sleeping import measure_sleeping
from bench.storing import measure_storing, storing_table
from bench.waking import (
    AT_ONCE,
    Place,
    awake_bytes,
    measure_new_machines,
    measure_new_machines_at_once,
    measure_waking,
    measure_waking_at_once,
    sleeping_costs,
)
from torpor_snapshotter.runtimes import current

AWAKE_MEGABYTES = 45
PARTS = ("instructions", "client", "command-line", "new", "waking", "forks", "storing", "cold", "sleeping")
_NEED_A_SERVER = frozenset(PARTS[:7])


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure Torpor against the floor.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: some minutes instead of many")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts).difference(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    measurements: list[Measurement] = []
    beside: list[RenderableType] = []
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as name, console.status("") as status:
        folder = Path(name)
        try:
            for found in measure(arguments.parts or PARTS, folder, status, quick=arguments.quick):
                if isinstance(found, Measurement):
                    measurements.append(found)
                else:
                    beside.append(found)
        finally:
            durable_milliseconds = statistics.median(durable_write_seconds(folder) for _ in range(100)) * 1000
            status.stop()
            load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
            for renderable in (table(measurements), *beside):
                console.print(renderable)
            console.print(f"{os.cpu_count()} processors, load {load}")
            console.print(f"A durable write takes {durable_milliseconds:.2f} ms here; an instruction waits for one.")


def measure(
    parts: Collection[str], folder: Path, status: Status, *, quick: bool
) -> Iterator[Measurement | RenderableType]:
    """Each measurement as soon as it is made, and what else there is to say."""
    rounds = 8 if quick else 40
    if _NEED_A_SERVER.intersection(parts):
        yield from _measure_at_a_server(parts, folder, status, rounds)
    if "cold" in parts:
        status.update("Waking machines from an S3 server")
        yield from measure_cold_waking(folder / "cold", machines=3 if quick else 10)
    if "sleeping" in parts:
        status.update("Starting, listing and calling with many machines asleep")
        yield from measure_sleeping(folder / "sleeping", rounds)


def _measure_at_a_server(
    parts: Collection[str], folder: Path, status: Status, rounds: int
) -> Iterator[Measurement | RenderableType]:
    status.update("Starting a server")
    with (
        ServerProcess(folder) as server,
        Connection(server.url, server.api_key) as connection,
        Connection(server.url, server.api_key) as another,
    ):
        status.update("Waiting until the server has settled")
        wait_until_settled(server.data_dir, "python")
        if "instructions" in parts:
            status.update("Running instructions, here and in a Jupyter kernel")
            yield from measure_instructions(connection, another, rounds * 50)
        if "client" in parts:
            status.update("Calling by the SDK and by its HTTP client alone")
            yield measure_client(server, rounds * 50)
        if "command-line" in parts:
            status.update("Starting the command line")
            yield from measure_command_line(server, connection, rounds)
        wait_until_settled(server.data_dir)
        place = Place(server, connection, Floor(current(server.data_dir), folder / "floor"))
        few = max(3, rounds // 4)
        if "new" in parts:
            status.update("Making machines, here and with plain runsc")
            yield measure_new_machines(place, rounds)
            yield measure_new_machines_at_once(place, few)
        if "waking" in parts:
            status.update("Waking machines, here and with plain runsc")
            yield from measure_waking(place, rounds)
            yield measure_waking_at_once(place, few)
            yield _awake(place)
        if "forks" in parts:
            status.update("Forking machines, and restoring them with plain runsc")
            yield from measure_forks(place, rounds)
        if "storing" in parts:
            status.update("Saving machines and weighing what is stored")
            yield storing_table(measure_storing(connection, server.data_dir))


def _awake(place: Place) -> str:
    used_bytes, overhead_bytes = awake_bytes(place)
    sandboxes, server_bytes = sleeping_costs(place)
    return (
        f"An awake bare machine takes {used_bytes / 1e6:.0f} MB (target: ≤ {AWAKE_MEGABYTES}), and its sandbox "
        f"{overhead_bytes / 1e6:.0f} MB beside; {2 * AT_ONCE} sleeping ones "
        f"have {sandboxes} sandboxes, and the server takes {server_bytes / 1e3:.0f} kB more for each of the last "
        f"{AT_ONCE} (target: nothing)."
    )


def durable_write_seconds(folder: Path) -> float:
    """How long a page takes to the disk: what a promise to forget nothing costs, whoever makes it."""
    with (folder / "durable").open("ab", buffering=0) as file:
        file.write(bytes(4096))
        return seconds_of(lambda: os.fdatasync(file.fileno()))


if __name__ == "__main__":
    main()
