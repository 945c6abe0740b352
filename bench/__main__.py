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

from bench.connection import Connection
from bench.instructions import measure_instructions
from bench.measurement import seconds_of, table
from bench.settling import wait_until_settled
from bench.storing import measure_storing, storing_table
from bench.waking import measure_new_machines, measure_waking
from torpor_snapshotter.runtimes import current


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure Torpor against the floor.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute instead of some")
    quick = parser.parse_args().quick
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
            wait_until_settled(server.data_dir)
            status.update("Making machines, here and with plain runsc")
            making = measure_new_machines(
                connection, runtime, server.data_dir, folder / "floor", rounds=8 if quick else 40
            )
            status.update("Waking a machine, here and with plain runsc")
            waking = measure_waking(connection, runtime, server.data_dir, folder / "floor", rounds=8 if quick else 40)
            status.update("Saving machines and weighing what is stored")
            storing = measure_storing(connection, server.data_dir)
        durable_milliseconds = statistics.median(durable_write_seconds(folder) for _ in range(100)) * 1000
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    console.print(table([*measurements, making, waking]))
    console.print(storing_table(storing))
    console.print(f"{os.cpu_count()} processors, load {load}, runtime {runtime.series}")
    console.print(f"A durable write takes {durable_milliseconds:.2f} ms on this disk; an instruction waits for two.")


def durable_write_seconds(folder: Path) -> float:
    """How long a page takes to the disk: what a promise to forget nothing costs, whoever makes it."""
    with (folder / "durable").open("ab", buffering=0) as file:
        file.write(bytes(4096))
        return seconds_of(lambda: os.fdatasync(file.fileno()))


if __name__ == "__main__":
    main()
