"""A guest that runs as plain processes of this host, without a sandbox."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from torpor_worker.guest_code import guest_command
from torpor_worker.guest_link import GuestLink


@asynccontextmanager
async def host_guest(folder: Path) -> AsyncIterator[tuple[Path, Path]]:
    """Start a guest that waits for its code; the FIFOs that are its standard input and output."""
    fifos = folder / "stdin", folder / "stdout"
    for fifo in fifos:
        os.mkfifo(fifo)
    fds = [os.open(fifo, os.O_RDWR) for fifo in fifos]
    process = await asyncio.create_subprocess_exec(*guest_command(sys.executable), stdin=fds[0], stdout=fds[1])
    for fd in fds:
        os.close(fd)
    try:
        yield fifos
    finally:
        interpreters = psutil.Process(process.pid).children()
        process.kill()
        await process.wait()
        for interpreter in interpreters:
            interpreter.kill()


async def attached(fifos: tuple[Path, Path], *, new: bool) -> GuestLink:
    """A link to the guest behind these FIFOs."""
    link = GuestLink(*fifos)
    await link.open()
    if new:
        await link.load()
    await link.attach(60)
    return link
