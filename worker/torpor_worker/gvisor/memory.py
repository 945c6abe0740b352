"""What a sandbox's memory really is: the blocks of its memory file, and what the sandbox process has for itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 512
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEMORY_FILE = "/memfd:runsc-memory (deleted)"


def private_bytes(statm: str) -> int:
    """Anonymous memory, from the text of `/proc/PID/statm`: resident pages less those of files and shared memory."""
    _, resident, shared, *_ = statm.split()
    return max(0, int(resident) - int(shared)) * _PAGE_BYTES


@dataclass(slots=True)
class MemoryFile:
    """The memory file of one sandbox process. All the guest's memory is in it: heap, memfd, tmpfs, children's.

    To be made when the sandbox runs: a restore gives the process a new file.
    """

    pid: int
    proc: Path = Path("/proc")
    _descriptors: tuple[Path, ...] = ()

    def used_bytes(self) -> int:
        """What the file holds now; 0 when the process is gone."""
        if not self._descriptors:
            self._descriptors = tuple(self._find())
        try:
            return sum(os.stat(descriptor).st_blocks for descriptor in self._descriptors) * _BLOCK_BYTES
        except OSError:
            self._descriptors = ()
            return 0

    def overhead_bytes(self) -> int:
        """What the sandbox process needs for itself; 0 when it is gone."""
        try:
            with open(f"{self.proc}/{self.pid}/statm", encoding="ascii") as statm:  # several times a second
                return private_bytes(statm.read())
        except OSError:
            return 0

    def _find(self) -> list[Path]:
        try:
            with os.scandir(self.proc / str(self.pid) / "fd") as entries:
                return [Path(entry.path) for entry in entries if os.readlink(entry.path) == _MEMORY_FILE]
        except OSError:
            return []
