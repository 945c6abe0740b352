"""Start a server of its own, measure, print a table."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from tests.support.server import ServerProcess

from bench.client import measure_client
from bench.cold import measure_cold_waking
from bench.command_line import measure_command_line
from bench.connection import Connection
from bench.floor import Floor
from bench.instructions import measure_instructions
from bench.measurement import seconds_of, table
from bench.settling import wait_until_settled
from bench.sleeping import measure_sleeping
from bench.storing import measure_storing, storing_table
from bench.waking import (
    Place,
    awake_bytes,
    measure_new_machines,
    measure_new_machines_at_once,
    measure_waking,
    measure_waking_at_once,
)
from torpor_snapshotter.runtimes import current

AWAKE_MEGABYTES = 45


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure Torpor against the floor.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute instead of some")
    quick = parser.parse_args().quick
    rounds = 8 if quick else 40
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as name, console.status("") as status:
        folder = Path(name)
        status.update("Starting a server")
        with (
            ServerProcess(folder) as server,
            Connection(server.url, server.api_key) as connection,
            Connection(server.url, server.api_key) as another,
        ):
            runtime = current(server.data_dir)
            status.update("Waiting until the server has settled")
            wait_until_settled(server.data_dir, "python")
            status.update("Running instructions, here and in a Jupyter kernel")
            measurements = measure_instructions(connection, another, rounds=300 if quick else 2000)
            status.update("Calling by the SDK and by its HTTP client alone")
            measurements.append(measure_client(server, rounds=300 if quick else 2000))
            status.update("Starting the command line")
            measurements += measure_command_line(server, connection, rounds)
            wait_until_settled(server.data_dir)
            place = Place(server, connection, Floor(runtime, folder / "floor"))
            status.update("Making machines, here and with plain runsc")
            measurements.append(measure_new_machines(place, rounds))
            measurements.append(measure_new_machines_at_once(place, max(3, rounds // 4)))
            status.update("Waking machines, here and with plain runsc")
            measurements += measure_waking(place, rounds)
            measurements.append(measure_waking_at_once(place, max(3, rounds // 4)))
            used_bytes, overhead_bytes = awake_bytes(place)
            status.update("Saving machines and weighing what is stored")
            storing = measure_storing(connection, server.data_dir)
        status.update("Waking machines from an S3 server")
        measurements += measure_cold_waking(folder / "cold", machines=3 if quick else 10)
        status.update("Starting, listing and calling with many machines asleep")
        measurements += measure_sleeping(folder / "sleeping", rounds)
        durable_milliseconds = statistics.median(durable_write_seconds(folder) for _ in range(100)) * 1000
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    console.print(table(measurements))
    console.print(storing_table(storing))
    console.print(
        f"An awake bare machine takes {used_bytes / 1e6:.0f} MB (target: ≤ {AWAKE_MEGABYTES}), and its sandbox "
        f"{overhead_bytes / 1e6:.0f} MB beside; a sleeping one nothing."
    )
    console.print(f"{os.cpu_count()} processors, load {load}, runtime {runtime.series}")
    console.print(f"A durable write takes {durable_milliseconds:.2f} ms on this disk; an instruction waits for one.")


def durable_write_seconds(folder: Path) -> float:
    """How long a page takes to the disk: what a promise to forget nothing costs, whoever makes it."""
    with (folder / "durable").open("ab", buffering=0) as file:
        file.write(bytes(4096))
        return seconds_of(lambda: os.fdatasync(file.fileno()))


if __name__ == "__main__":
    main()
