"""Many files in and out of machines at once: `python -m tests.support.transfers --total-mb 1024 --streams 500`.

A machine's file systems have 512 MiB together, and its home folder 160: so a gigabyte is many files in many machines.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from tests.support.remote_files import PIECE_BYTES, up_and_down
from tests.support.server import ServerProcess

MEBIBYTE = 1 << 20
HOME_MB = 120
"""What is put into one machine's home folder, which has room for 160 MiB."""


@dataclass
class Memory:
    """What the server's own process took, in bytes."""

    before: int
    peak: int = field(default=0)

    @property
    def grown_mb(self) -> float:
        """By how much it grew."""
        return (self.peak - self.before) / MEBIBYTE


@contextmanager
def watched(server: ServerProcess) -> Iterator[Memory]:
    """Watch the memory of the server's own process."""
    process = server.process
    memory = Memory(process.memory_info().rss)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            memory.peak = max(memory.peak, process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield memory
    finally:
        over.set()
        watching.join()


async def transfer(server: ServerProcess, machines: list[str], streams: int, size: int) -> None:
    """So many files of this size, in and out again, all at once; each is compared by its digest."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=900, limits=limits) as client:
        paths = [f"/v1/machine/{machines[number % len(machines)]}/files/{number}" for number in range(streams)]
        await asyncio.gather(*(up_and_down(client, path, number, size) for number, path in enumerate(paths)))


def main() -> int:
    """Do it, and print a line of what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total-mb", type=int, default=1024)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--machines", type=int, default=0, help="by default as few as have room for it")
    arguments = parser.parse_args()
    size = max(PIECE_BYTES, arguments.total_mb * MEBIBYTE // arguments.streams // PIECE_BYTES * PIECE_BYTES)
    count = arguments.machines or -(-arguments.total_mb // HOME_MB)
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder)) as server:
        with server.client() as client:
            machines = [client.post("/v1/machine/new").json()["machine_name"] for _ in range(count)]
        with watched(server) as memory:
            began = time.monotonic()
            asyncio.run(transfer(server, machines, arguments.streams, size))
            seconds = time.monotonic() - began
    moved = 2 * size * arguments.streams / MEBIBYTE
    sys.stdout.write(
        f"{arguments.streams} streams of {size / MEBIBYTE:.2f} MiB in {count} machines, in and out: {seconds:.1f} s, "
        f"{moved / seconds:.0f} MiB/s; the server's memory grew by {memory.grown_mb:.1f} MiB\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
