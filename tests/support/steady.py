"""What the processes that a machine's instructions go through hold, measured from outside and inside."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
from bench.connection import Connection
from tests.support.server import ServerProcess

CELLS = (
    "1 + {turn}",
    "print('turn', {turn})",
    "total = sum(range({turn} % 97))\ntotal",
    "def double_{digit}(number):\n    return 2 * number\ndouble_{digit}({turn})",
    "{turn} / 0",
    "unknown_{digit}",
    "this is wrong {turn}",
    "from IPython.display import HTML\ndisplay(HTML('<b>{turn}</b>'))",
    "import sys\nprint('wrong', file=sys.stderr)\n[1, 2, {turn}]",
    "class Point_{digit}:\n    x = {turn}\nPoint_{digit}.x",
    "words = ['w' * (number % 7) for number in range(200)]\nlen(words)",
    "import asyncio\nawait asyncio.sleep(0)\n{turn}",
)
"""Values, output, errors, displays, definitions; every one uses the same few names again."""

INSIDE = """
import gc, json, os
gc.collect()
def rss_of(pid):
    with open(f'/proc/{pid}/statm') as file:
        return int(file.read().split()[1]) * 4096
json.dumps({'interpreter': rss_of(os.getpid()), 'supervisor': rss_of(1)})
"""


class Steady:
    """One machine of a running server, and instructions for it."""

    def __init__(self, server: ServerProcess, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._machine = f"/v1/machine/{connection.post('/v1/machine/new')['machine_name']}"
        self.executed = 0
        """How many instructions it has run."""

    def run(self, count: int) -> None:
        """Run the cells in turns, `count` instructions altogether."""
        for turn in range(self.executed, self.executed + count):
            self._execute(CELLS[turn % len(CELLS)].format(turn=turn, digit=turn // len(CELLS) % 10))

    def memory(self) -> dict[str, int]:
        """Bytes that each process holds for itself now, right after a save."""
        self._connection.post(self._machine + "/sync")
        inside: dict[str, int] = json.loads(self._execute(INSIDE)["value"].strip("'"))
        server = self._server.process
        (snapshotter,) = (child for child in server.children() if _is_snapshotter(child))
        return {
            **inside,
            "server": _anonymous_bytes(server),
            "snapshotter": _anonymous_bytes(snapshotter),
        }

    def _execute(self, code: str) -> dict[str, str]:
        self.executed += 1
        result: dict[str, str] = self._connection.post(self._machine + "/run", {"code": code})["result"]
        return result


def _is_snapshotter(process: psutil.Process) -> bool:
    return any("torpor_snapshotter" in argument for argument in process.cmdline())


def _anonymous_bytes(process: psutil.Process) -> int:
    """What is of its own making: pages of files count as its own or not by what other processes have mapped."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    return int(fields["Anonymous"].split()[0]) * 1024
