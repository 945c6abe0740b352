"""All that can be had of a machine that cannot be used, as one archive: what it is, its log, its newest state."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torpor_api.encoding import to_json
from torpor_api.errors import InstructionNotFound, MachineNotParked
from torpor_api.instructions import collect
from torpor_api.results import instruction_json, machine_detail, snapshot_json
from torpor_api.services import Services

PIECE_BYTES = 256 * 1024
BLOCK_BYTES = tarfile.BLOCKSIZE
MEBIBYTE = 1024 * 1024
PREFIX = "torpor-export-"


def remove_leftovers(data_dir: Path) -> None:
    """Remove what exports had written when a server died."""
    for folder in data_dir.glob(f"{PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


async def export(services: Services, account: str, name: str) -> AsyncIterator[bytes]:
    """A tar archive, piece by piece: `machine.json`, `log.jsonl` and, if any snapshot starts, `state.tar`.

    What is in `state.tar` was written by code of the machine's own: be as careful with it as with the machine. The
    machine stays as it is. Only for one that is parked, or whose runtime is quarantined. Raises `MachineNotFound`,
    `MachineNotParked` and `CannotWake` before the first piece.
    """
    row = await services.ledger.machine(account, name)
    if row.state != "parked" and not await services.ledger.is_quarantined(account, name):
        raise MachineNotParked
    folder = TemporaryDirectory(prefix=PREFIX, dir=services.config.data_dir)
    try:
        state, log, about = (Path(folder.name) / part for part in ("state.tar", "log.jsonl", "machine.json"))
        snapshots = await services.ledger.snapshots(account, name)
        exported = await services.machines.export(
            name, row.memory_mb * MEBIBYTE, [one.snapshot for one in snapshots], state
        )
        await _write_log(services, account, name, log)
        facts: dict[str, Any] = {
            "machine": machine_detail(row),
            "snapshots": [snapshot_json(one) for one in snapshots],
            "state_of_generation": exported.generation,
            "unusable": {str(generation): reason for generation, reason in exported.failures.items()},
        }
        await asyncio.to_thread(about.write_bytes, to_json(facts))
        if exported.generation is None:
            await asyncio.to_thread(state.unlink, missing_ok=True)
    except BaseException:
        folder.cleanup()
        raise
    return _pieces(folder, [part for part in (about, log, state) if part.exists()])


async def _write_log(services: Services, account: str, name: str, into: Path) -> None:
    """Every instruction with its code, output and result, a JSON line each, in the order of their seqs."""
    with into.open("wb") as file:
        seq = 0
        while True:
            try:
                row = await services.ledger.instruction(account, name, seq)
            except InstructionNotFound:
                return
            line = to_json({**instruction_json(row), "events": await collect(services, row, name)})
            await asyncio.to_thread(file.write, line + b"\n")
            seq += 1


async def _pieces(folder: TemporaryDirectory[str], members: list[Path]) -> AsyncIterator[bytes]:
    try:
        for path in members:
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            member.mtime = int(path.stat().st_mtime)
            yield member.tobuf(tarfile.PAX_FORMAT)
            with path.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    yield piece
            yield bytes(-member.size % BLOCK_BYTES)
        yield bytes(2 * BLOCK_BYTES)
    finally:
        folder.cleanup()
