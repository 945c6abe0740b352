"""What is written down of a sandbox in its folder, for whoever finds it there after the server has died."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from torpor_worker.survivors import ProcessFacts, Survivor

_FILE = "process.json"


@dataclass(frozen=True, slots=True)
class Record:
    """Which process it is, what it runs on, and its worker's facts.

    A record is replaced as a whole. It need not outlive the host, as the process does not: nothing is flushed.
    """

    pid: int
    started: int
    """Of the process, in clock ticks since the host's start: with the pid it names one process only."""
    series: str
    runtime: str
    """Names exactly what it runs on."""
    facts: ProcessFacts

    def write(self, folder: Path) -> None:
        """Put it into the sandbox's folder. Raises `OSError`."""
        half = folder / f".{_FILE}"
        fields = asdict(self) | {"facts": self.facts.to_json()}
        half.write_text(json.dumps(fields))
        half.replace(folder / _FILE)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The one in a sandbox's folder; None if there is none, or it is not whole."""
        try:
            fields = json.loads((folder / _FILE).read_text())
            facts = ProcessFacts.from_json(fields["facts"])
            pid, started = int(fields["pid"]), int(fields["started"])
            return cls(pid, started, str(fields["series"]), str(fields["runtime"]), facts)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def remove(folder: Path) -> None:
        """Take it back: from now on nobody takes the sandbox over."""
        with suppress(OSError):
            (folder / _FILE).unlink()

    def is_alive(self, state: Path, container: str) -> bool:
        """Whether its process runs, and runs this container of that folder of states."""
        try:
            process = psutil.Process(self.pid)
            arguments = process.cmdline()
            return (
                started_ticks(self.pid) == self.started
                and process.status() != psutil.STATUS_ZOMBIE
                and f"--root={state}" in arguments
                and container in arguments
            )
        except (psutil.Error, OSError):
            return False


def survivors_in(machines: Path, state: Path) -> list[Survivor]:
    """Of the folders of sandboxes in `machines`, those whose process lives and is written down."""
    found = []
    for folder in machines.iterdir():
        record = Record.read(folder)
        if record is not None and record.is_alive(state, folder.name):
            found.append(Survivor(folder.name, record.facts))
    return found


def started_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since the host's start. Raises `OSError`."""
    # psutil's time adds the host's start, which moves when the clock is set.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
