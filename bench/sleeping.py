"""Ten thousand sleeping machines against ten: start-up, list, and a call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ServerProcess

from bench.connection import Connection
from bench.measurement import Measurement, seconds_of
from bench.settling import wait_until_settled
from torpor_api.ledger import MachineSettings, SqlLedger
from torpor_snapshotter.key import pack_key
from torpor_worker.ledger import InstructionResult, Snapshot

MANY = 10_000
FEW = 10
MOST = 1.1
"""No slower, but for what two measurements of the same thing differ by."""
SLEEPER = MachineSettings(memory_mb=1024, idle_seconds=60.0, tags={"kind": "sleeper"})
_AT_ONCE = 100
_OBJECT = b"of a machine that nobody wakes"


@dataclass(eq=False)
class _Sleepers:
    """A server with so many machines that sleep, and one that does not."""

    server: ServerProcess
    starting: list[float]
    listing: list[float]
    calling: list[float]

    @classmethod
    def make(cls, folder: Path, count: int) -> _Sleepers:
        folder.mkdir()
        server = ServerProcess(folder)
        server.start()  # which makes the account and the database
        server.stop()
        asyncio.run(_add(server, count))
        return cls(server, [], [], [])

    def start(self) -> None:
        self.starting.append(seconds_of(self.server.start))

    def call(self, connection: Connection, machine: str) -> None:
        path = f"/v1/machine/list?limit={FEW}"
        self.listing.append(seconds_of(lambda: connection.post(path)))
        self.calling.append(seconds_of(lambda: connection.post(f"/v1/machine/{machine}/run", {"code": "1 + 1"})))


def measure_sleeping(folder: Path, rounds: int) -> list[Measurement]:
    """Start-ups in turns, then lists and calls in turns."""
    folder.mkdir()
    few, many = (_Sleepers.make(folder / str(count), count) for count in (FEW, MANY))
    for _ in range(max(3, rounds // 4)):
        for sleepers in (few, many):
            sleepers.start()
            sleepers.server.stop()
    with few.server, many.server:
        connections = {one: Connection(one.server.url, one.server.api_key) for one in (few, many)}
        machines = {one: connections[one].post("/v1/run", {"code": "1"})["machine"] for one in (few, many)}
        for one in (few, many):
            wait_until_settled(one.server.data_dir, "python")
        for _ in range(20 * rounds):
            for one in (few, many):
                one.call(connections[one], machines[one])
        for connection in connections.values():
            connection.__exit__(None, None, None)
    what = f"with {MANY:,} sleeping machines"
    return [
        Measurement(f"start-up {what}", f"with {FEW}", many.starting, few.starting, MOST),
        Measurement(f"list of {FEW} {what}", f"with {FEW}", many.listing, few.listing, MOST),
        Measurement(f"run `1 + 1` {what}", f"with {FEW}", many.calling, few.calling, MOST),
    ]


async def _add(server: ServerProcess, count: int) -> None:
    """Machines as they are after an instruction and a sleep, by the ledger alone; their objects are no snapshots."""
    ledger = await SqlLedger.open(f"sqlite:///{server.data_dir / 'torpor.db'}", server.data_dir)
    await ledger.open_session("bench")
    for first in range(0, count, _AT_ONCE):
        await asyncio.gather(*(_sleeper(ledger, server) for _ in range(first, min(count, first + _AT_ONCE))))
    await ledger.close()


async def _sleeper(ledger: SqlLedger, server: ServerProcess) -> None:
    name, _ = await ledger.create_machine(server.account, SLEEPER)
    await ledger.accept(server.account, name, "a = 3", 15.0, when_busy="queue")
    hold = await ledger.acquire(name)
    if hold is None:
        raise RuntimeError(f"{name} is held by somebody else")
    position = -1
    while (entry := await ledger.start_next(hold)) is not None:
        position = entry.position if entry.position is not None else position
        if entry.seq is not None:
            await ledger.finish(hold, entry.seq, entry.attempt, InstructionResult(None, {}, None, None, 1))
    generation, key = await ledger.allot_save(hold)
    for path in (server.data_dir / "store" / each for each in (key, pack_key(key))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_OBJECT)
    snapshot = Snapshot(
        generation=generation,
        line=hold.line,
        parent=None,
        position=position,
        running_seq=None,
        running_used_seconds=0.0,
        output_offset=0,
        manifest_key=key,
        manifest_sha256="0" * 64,
        stored_bytes=2 * len(_OBJECT),
        image_bytes=30_000_000,
        series="bench",
        packs=(pack_key(key),),
    )
    await ledger.commit_snapshot(hold, None, snapshot)
    if not await ledger.release(hold, generation):
        raise RuntimeError(f"{name} does not sleep")
