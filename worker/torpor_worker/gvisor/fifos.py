"""The two named pipes of a sandbox: the only way in and out, and a way back in for a restarted server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fifos:
    """What the guest reads (`stdin`) and writes (`stdout`)."""

    stdin: Path
    stdout: Path

    @classmethod
    def make(cls, folder: Path, machine: str) -> Fifos:
        """Make the new folder of a sandbox, for its owner only, with both and the machine's name for people."""
        folder.mkdir(mode=0o700)
        cls.name(folder, machine)
        fifos = cls.of(folder)
        os.mkfifo(fifos.stdin, 0o600)
        os.mkfifo(fifos.stdout, 0o600)
        return fifos

    @classmethod
    def of(cls, folder: Path) -> Fifos:
        """Those in the folder of a sandbox."""
        return cls(folder / "stdin", folder / "stdout")

    @staticmethod
    def name(folder: Path, machine: str) -> None:
        """Write down whose sandbox this is, for people."""
        (folder / "machine").write_text(machine)

    @contextmanager
    def guest_ends(self) -> Iterator[tuple[int, int]]:
        """Descriptors to hand to `runsc` as the sandbox's standard input and output; closed here afterwards.

        The guest never sees an end of file. Its output is for writing only: gVisor takes into an image what it can read
        from a pipe, and what nobody had read of the output yet would be gone from it. What the guest has said stays in
        the pipe while no server is there; from then on it waits.
        """
        with ExitStack() as stack:

            def opened(path: Path, mode: int) -> int:
                fd = os.open(path, mode | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                return fd

            stdin = opened(self.stdin, os.O_RDWR)
            opened(self.stdout, os.O_RDWR)  # or the next one would wait for a reader
            yield stdin, opened(self.stdout, os.O_WRONLY)
