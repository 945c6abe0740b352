"""What can still be had of a machine that cannot be recovered: its files, and what of its variables pickles."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

import structlog

from torpor_worker.attached import Attached
from torpor_worker.bell import Bell
from torpor_worker.errors import ProcessDied
from torpor_worker.ledger import Hold, Snapshot
from torpor_worker.sandbox import Output, Result, SandboxError
from torpor_worker.services import Services
from torpor_worker.wake_timer import WakeTimer
from torpor_worker.waking import Unusable, Waking

log = structlog.get_logger(__name__)

CODE_FILE = "export_state.py"
MIME_TYPE = "application/x-torpor-export"
LIMIT_BYTES = 4 * 1024**3
EXPORT_SECONDS = 300.0
TRIES = 3
"""How often each snapshot is tried: what kills the process may be slower the next time."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written."""

    generation: int | None = None
    """Of the snapshot that it comes from; None if none would start."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why newer ones could not be used, by generation."""


async def export(
    services: Services, machine: str, memory_bytes: int, snapshots: list[Snapshot], into: Path
) -> Exported:
    """Write a tar archive of the first snapshot that starts and lives for long enough to be read.

    Nothing of the machine changes: a copy is started aside, and thrown away. What comes out of it is not looked at.
    Raises `CannotWake`.
    """
    failures: dict[int, str] = {}
    for snapshot in snapshots:
        if not snapshot.quiescent:
            continue
        hold = Hold(machine, "", -1, snapshot.line, snapshot, memory_bytes, None, {})
        for _ in range(TRIES):
            bell = Bell()
            waking = Waking(machine, services, bell)
            try:
                await services.host.have(snapshot.series)
                attached = await waking.attach(hold, WakeTimer(asyncio.get_running_loop().time))
                try:
                    async with asyncio.timeout(EXPORT_SECONDS):
                        await _read(attached, snapshot, bell, into)
                finally:
                    await attached.close(services.config.destroy_seconds)
            except (ProcessDied, SandboxError, Unusable, TimeoutError) as error:
                failures[snapshot.generation] = str(error) or "it took too long"
                log.warning("An export failed", action="export", machine=machine, generation=snapshot.generation)
                if isinstance(error, Unusable):
                    break
            else:
                return Exported(snapshot.generation, failures)
    return Exported(None, failures)


async def _read(attached: Attached, snapshot: Snapshot, bell: Bell, into: Path) -> None:
    code = files("torpor_worker").joinpath(CODE_FILE).read_text()
    position = snapshot.position + 1
    await attached.sandbox.execute(position, position, code, replaying=True)  # no seq is higher than its position
    size_bytes = 0
    with into.open("wb") as file:
        while True:
            while (event := attached.next()) is not None:
                if isinstance(event, Result) and event.seq == position:
                    if event.error is not None or size_bytes == 0:
                        raise SandboxError(f"its state could not be read: {(event.error or {}).get('message')}")
                    return
                if isinstance(event, Output) and event.kind == "display" and event.seq == position:
                    size_bytes += await asyncio.to_thread(_keep, event.data, file)
                    if size_bytes > LIMIT_BYTES:
                        raise SandboxError(f"its state has more than {LIMIT_BYTES} bytes")
            await attached.acknowledge()
            await bell.wait()


def _keep(display: bytes, file: BinaryIO) -> int:
    """Append what a display of the code carries; how many bytes. Other displays are not ours."""
    size_bytes = 0
    for piece in _pieces(display):
        size_bytes += file.write(piece)
    return size_bytes


def _pieces(display: bytes) -> Iterator[bytes]:
    try:
        text = json.loads(display)["data"][MIME_TYPE]
        yield base64.b64decode(text, validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return
