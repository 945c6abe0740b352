"""Many files in and out of machines at once, with digests: `scripts/transfer --bytes 1G --streams 500`.

A machine's home folder has room for 160 MiB, and all its file systems together for 512: so a gigabyte is many files in
many machines. Clients run on the server's host, and make and compare what they send: what is measured is less than the
server could do.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from tests.support.remote_files import PIECE_BYTES, up_and_down
from tests.support.server import ServerProcess

MEBIBYTE = 1 << 20
HOME_BYTES = 120 * MEBIBYTE
"""What is put into one machine's home folder, which has room for 160 MiB."""
UNITS = {"": 1, "K": 1 << 10, "M": MEBIBYTE, "G": 1 << 30}


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


async def transfer(
    server: ServerProcess,
    machines: list[str],
    streams: int,
    size: int,
    moved: Callable[[int], None] = lambda _: None,
) -> None:
    """So many files of this size, in and out again, all at once; each is compared by its digest."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=900, limits=limits) as client:
        paths = [f"/v1/machine/{machines[number % len(machines)]}/files/{number}" for number in range(streams)]
        await asyncio.gather(*(up_and_down(client, path, number, size, moved) for number, path in enumerate(paths)))


@dataclass(frozen=True)
class Plan:
    """What is to be transferred."""

    streams: int
    file_bytes: int
    machines: int

    @property
    def moved_bytes(self) -> int:
        """In and out, together."""
        return 2 * self.streams * self.file_bytes


@dataclass(frozen=True)
class Outcome:
    """What it took. Every digest was equal, or there is none of these."""

    plan: Plan
    seconds: float
    before_bytes: int
    peak_bytes: int
    after_bytes: int


def size_of(text: str) -> int:
    """Bytes of a number with K, M or G behind it, or none of these. Raises ValueError."""
    found = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if found is None:
        raise ValueError(f"{text} is no number of bytes; try 64M or 1G")
    return int(found[1]) * UNITS[found[2]]


def plan(total_bytes: int, streams: int) -> Plan:
    """Files of one size, which is whole pieces, and as few machines as have room for them. Raises ValueError."""
    file_bytes = max(1, total_bytes // streams // PIECE_BYTES) * PIECE_BYTES
    if file_bytes > HOME_BYTES:
        raise ValueError(f"a machine's home folder takes {HOME_BYTES} bytes: that many bytes need more streams")
    in_one = HOME_BYTES // file_bytes
    return Plan(streams, file_bytes, -(-streams // in_one))


def run(server: ServerProcess, asked: Plan, moved: Callable[[int], None]) -> Outcome:
    """Make machines, transfer, and delete them."""
    with server.client() as client:
        machines = [client.post("/v1/machine/new").json()["machine_name"] for _ in range(asked.machines)]
    with watched(server) as memory:
        began = time.monotonic()
        asyncio.run(transfer(server, machines, asked.streams, asked.file_bytes, moved))
        seconds = time.monotonic() - began
    after_bytes = server.process.memory_info().rss
    with server.client() as client:
        for name in machines:
            client.delete(f"/v1/machine/{name}")
    return Outcome(asked, seconds, memory.before, memory.peak, after_bytes)


def table(outcome: Outcome) -> Table:
    """What came of it, for people."""
    asked, shown = outcome.plan, Table(show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    for name, value in (
        ("streams at once", f"{asked.streams}"),
        ("each", f"{asked.file_bytes / MEBIBYTE:.2f} MiB"),
        ("machines", f"{asked.machines}"),
        ("in and out", f"{asked.moved_bytes / MEBIBYTE:,.0f} MiB"),
        ("digests equal", f"{asked.streams} of {asked.streams}"),
        ("seconds", f"{outcome.seconds:.1f}"),
        ("MiB/s", f"{asked.moved_bytes / MEBIBYTE / outcome.seconds:.1f}"),
        ("server's memory before", f"{outcome.before_bytes / MEBIBYTE:.1f} MiB"),
        ("server's memory at its peak", f"{outcome.peak_bytes / MEBIBYTE:.1f} MiB"),
        ("server's memory after", f"{outcome.after_bytes / MEBIBYTE:.1f} MiB"),
    ):
        shown.add_row(name, value)
    return shown


def main() -> int:
    """Do it, and print a table of what it took; fails if a digest differs, or anything is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", default="1G", help="of all files together, one way; 64M, 1G")
    parser.add_argument("--streams", type=int, default=500, help="at once: one file each")
    arguments = parser.parse_args()
    try:
        asked = plan(size_of(arguments.bytes), arguments.streams)
    except ValueError as error:
        parser.error(str(error))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder)) as server,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        bar = progress.add_task("in and out", total=asked.moved_bytes)
        outcome = run(server, asked, lambda size: progress.advance(bar, size))
    Console().print(table(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
