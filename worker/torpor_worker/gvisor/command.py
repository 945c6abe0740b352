"""Processes that run one command, started by `vfork`, and what they print.

`asyncio.create_subprocess_exec` on uvloop forks: the page tables of the whole server are copied, which stops its event
loop for 15 ms and more. `subprocess.Popen` shares them until the command begins, and takes a tenth of a millisecond.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL


class Command:
    """A command in a session of its own, with whatever it starts. Make it in a running event loop."""

    def __init__(self, command: list[str], *, cwd: Path, ends: tuple[int, int] | None = None) -> None:
        """`ends`: its standard input and output; None: it has no input, and what it prints is kept.

        Raises `OSError` if it cannot be started.
        """
        # In files: a process that it leaves behind may keep them open, and nobody waits for their end.
        self._printed = () if ends is not None else (_memory("stdout"), _memory("stderr"))
        stdin, stdout, stderr = (*ends, DEVNULL) if ends is not None else (DEVNULL, *self._printed)
        try:
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, start_new_session=True
            )
        except BaseException:
            self._close()
            raise

    async def finished(self, timeout_seconds: float) -> int:
        """Its exit status. Raises `TimeoutError`; then, and if this is cancelled, it is killed with all of its own."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(self._process.pid)
        loop.add_reader(descriptor, ended.set)
        try:
            async with asyncio.timeout(timeout_seconds):
                await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            if not ended.is_set():
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await asyncio.shield(asyncio.to_thread(self._process.wait))
        return self._process.wait()

    def printed(self) -> tuple[str, str]:
        """What it wrote to standard output and standard error; to be called once, when it is finished or given up."""
        texts = [os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace") for file in self._printed]
        self._close()
        return (texts[0], texts[1]) if texts else ("", "")

    def _close(self) -> None:
        for file in self._printed:
            os.close(file)
        self._printed = ()


def _memory(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)
