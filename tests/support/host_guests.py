"""A guest that runs as plain processes of this host, without a sandbox."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from torpor_worker.guest_link import GuestLink, guest_command


@asynccontextmanager
async def host_guest(folder: Path) -> AsyncIterator[tuple[Path, Path]]:
    """Start a guest that waits for its code; the FIFOs that are its standard input and output."""
    fifos = folder / "stdin", folder / "stdout"
    for fifo in fifos:
        os.mkfifo(fifo)
    fds = [os.open(fifo, os.O_RDWR) for fifo in fifos]
    process = subprocess.Popen(guest_command(sys.executable), stdin=fds[0], stdout=fds[1])
    for fd in fds:
        os.close(fd)
    try:
        yield fifos
    finally:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        await asyncio.to_thread(process.wait)
        for child in children:
            os.kill(int(child), 9)


async def attached(fifos: tuple[Path, Path], *, new: bool) -> GuestLink:
    """A link to the guest behind these FIFOs."""
    link = GuestLink(*fifos)
    await link.open()
    if new:
        await link.load()
    await link.attach(60)
    return link
