"""Golden snapshots: made once by an earlier version, and woken ever since, to see that they still can be.

A folder of them has `golden.json` (what is in it, and what its machines must answer), `rootfs.erofs.zst`, and a store
and its keys as a server has them. The sandbox binary is not there: it is what is tried.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from torpor_snapshotter.archive import Archive
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.keys import FolderKeyStore
from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.folder import file_sha256, series_name
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.runsc import stamped_version
from torpor_snapshotter.store import StoreError
from torpor_worker.gvisor import GVisorHost
from torpor_worker.sandbox import InterpreterDied, Limits, Result, Sandbox, SandboxError, SandboxLost

LIMITS = Limits(memory_bytes=512 * 1024**2)
ANSWER_SECONDS = 120


class GoldenFailed(Exception):
    """A golden snapshot does not wake as it was; the message says which, and how."""


@dataclass(frozen=True, slots=True)
class GoldenSnapshot:
    """One snapshot, and what it must answer."""

    name: str
    manifest_key: str
    manifest_sha256: str
    position: int
    running: tuple[int, str] | None
    """The seq of the instruction in the middle of which it was taken, and its value in the end."""
    asks: tuple[tuple[str, str], ...]
    """Code and its value, one after the other."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A folder of golden snapshots."""

    folder: Path
    made_by: str
    runsc_version: str
    """The stamp that a binary must have to wake them."""
    rootfs_sha256: str
    snapshots: tuple[GoldenSnapshot, ...]

    @classmethod
    def read(cls, folder: Path) -> Golden:
        """Read what is in a folder. Raises `OSError`, ValueError."""
        facts: dict[str, Any] = json.loads((folder / "golden.json").read_text())
        snapshots = tuple(
            GoldenSnapshot(
                name=one["name"],
                manifest_key=one["manifest_key"],
                manifest_sha256=one["manifest_sha256"],
                position=one["position"],
                running=None if one["running"] is None else (one["running"][0], one["running"][1]),
                asks=tuple((code, value) for code, value in one["asks"]),
            )
            for one in facts["snapshots"]
        )
        return cls(folder, facts["made_by"], facts["runsc_version"], facts["rootfs_sha256"], snapshots)


def goldens(folder: Path) -> list[Golden]:
    """Every folder of golden snapshots in a folder, by name. Raises `OSError`, ValueError."""
    return [Golden.read(place.parent) for place in sorted(folder.glob("*/golden.json"))]


def unpack_rootfs(golden: Golden, place: Path) -> None:
    """Write the root file system to `place`. Raises `GoldenFailed` if it is not the one that it was."""
    digest = hashlib.sha256()
    with (golden.folder / "rootfs.erofs.zst").open("rb") as packed, place.open("xb") as out:
        for piece in zstandard.ZstdDecompressor().read_to_iter(packed):
            digest.update(piece)
            out.write(piece)
    if digest.hexdigest() != golden.rootfs_sha256:
        raise GoldenFailed(f"The root file system in {golden.folder} is damaged.")


async def wake(golden: Golden, runsc: Path, scratch: Path, report: Report) -> None:
    """Wake every golden snapshot in a folder with a sandbox binary, from empty caches.

    `scratch` is an empty folder with a short path. Raises `GoldenFailed`, and `RuntimeProblem` if nothing runs at all.
    """
    if stamped_version(runsc) != golden.runsc_version:
        raise GoldenFailed(f"{runsc} has the stamp {stamped_version(runsc)}, not {golden.runsc_version}.")
    runtime = await asyncio.to_thread(_lay_out, golden, runsc, scratch)
    host = GVisorHost(runtime, scratch / "sandboxes")
    archive = Archive(FolderStore(scratch / "store"), FolderKeyStore(scratch / "keys"))
    try:
        for snapshot in golden.snapshots:
            task = f"Waking {golden.made_by}: {snapshot.name}"
            report(task)
            try:
                await _wake(host, archive, snapshot, scratch / "images" / snapshot.name)
            except (SandboxError, StoreError, TimeoutError) as error:
                reason = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
                raise GoldenFailed(f"{task}: {reason}") from error
            report(task, 1)
    finally:
        await host.close()
        await archive.close()


def _lay_out(golden: Golden, runsc: Path, scratch: Path) -> Runtime:
    folder = scratch / "runtime"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (scratch / "images").mkdir()
    unpack_rootfs(golden, folder / "rootfs.erofs")
    shutil.copy(runsc, folder / "runsc")
    for path, mode in ((folder / "rootfs.erofs", 0o644), (folder / "runsc", 0o755)):
        path.chmod(mode)
    for name in ("store", "keys"):
        shutil.copytree(golden.folder / name, scratch / name)
    return Runtime(
        series=series_name(golden.runsc_version, golden.rootfs_sha256),
        runsc=folder / "runsc",
        runsc_version=golden.runsc_version,
        runsc_sha256=file_sha256(folder / "runsc"),
        rootfs=folder / "rootfs.erofs",
        rootfs_sha256=golden.rootfs_sha256,
    )


async def _wake(host: GVisorHost, archive: Archive, snapshot: GoldenSnapshot, image: Path) -> None:
    await archive.fetch(snapshot.manifest_key, snapshot.manifest_sha256, image)
    sandbox, state = await host.restore(snapshot.name, image, LIMITS)
    try:
        running = None if snapshot.running is None else snapshot.running[0]
        if (state.last_position, state.running) != (snapshot.position, running):
            raise SandboxError(f"its guest says that it is at {state.last_position}, running {state.running}")
        if snapshot.running is not None:
            _compare("what was running", await _value(sandbox), snapshot.running[1])
        for number, (code, expected) in enumerate(snapshot.asks, start=1):
            position = snapshot.position + number
            await sandbox.execute(position, position, code, replaying=False)
            _compare(code, await _value(sandbox), expected)
    finally:
        await sandbox.destroy()
        await asyncio.to_thread(shutil.rmtree, image)


async def _value(sandbox: Sandbox) -> str | None:
    """The value of the instruction that runs."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            match await sandbox.receive():
                case Result(error=None, value=value):
                    await sandbox.acknowledge()
                    return value
                case Result(error=error):
                    raise SandboxError(f"an instruction ended in an error: {error}")
                case InterpreterDied(reason=reason) | SandboxLost(reason=reason):
                    raise SandboxError(f"its process ended: {reason}")


def _compare(what: str, value: str | None, expected: str) -> None:
    if value != expected:
        raise SandboxError(f"`{what}` is {value}, and should be {expected}")
