"""The first instruction of an asleep machine over HTTP against `runsc create` and `restore` of the same image."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from pathlib import Path

from bench.connection import Connection
from bench.measurement import Measurement, seconds_of
from torpor_snapshotter.runtime import Runtime
from torpor_worker.guest_link import GuestLink
from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.gvisor.namespace import command_prefix
from torpor_worker.gvisor.runsc import Runsc
from torpor_worker.gvisor.spec import spec_bytes


def measure_waking(connection: Connection, runtime: Runtime, data_dir: Path, folder: Path, rounds: int) -> Measurement:
    """Wake → result, and create → restore → the guest's first reply. `folder` is new, for sandboxes of our own."""
    machine = connection.post("/v1/machine/new")["machine_name"]
    path = f"/v1/machine/{machine}/run"
    connection.post(path, {"code": "1 + 1"})
    connection.post(f"/v1/machine/{machine}/sleep")
    floor = _Floor(runtime, folder)
    image = folder / "image"
    shutil.copytree(_newest_image(data_dir / "images" / machine), image)
    torpor_seconds, floor_seconds = [], []
    for _ in range(1 + rounds):
        torpor_seconds.append(seconds_of(lambda: connection.post(path, {"code": "1 + 1"})))
        connection.post(f"/v1/machine/{machine}/sleep")
        floor_seconds.append(asyncio.run(floor.restore_seconds(image)))
    return Measurement(
        "wake and run `1 + 1` over HTTP", "runsc create + restore", torpor_seconds[1:], floor_seconds[1:], most=1.5
    )


def _newest_image(images: Path) -> Path:
    """The local image of a machine's last generation; see `torpor_worker.local_images`."""
    return max(images.iterdir(), key=lambda folder: int(folder.name)) / "image"


class _Floor:
    """Plain `runsc` with the spec that every sandbox has."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._folder = folder
        self._bundle = folder / "bundle"
        state = folder / "state"
        for made in (folder, state, self._bundle, self._bundle / "rootfs"):
            made.mkdir()
        (self._bundle / "config.json").write_bytes(spec_bytes())
        self._runsc = Runsc(runtime.runsc, runtime.rootfs.parent, state, command_prefix(folder / "launcher"))

    async def restore_seconds(self, image: Path) -> float:
        """From the start of `runsc create` until the guest has answered."""
        container = secrets.token_hex(8)
        folder = self._folder / container
        fifos = Fifos.make(folder, "bench")
        link = GuestLink(fifos.stdin, fifos.stdout)
        await link.open()
        try:
            begun = time.perf_counter()
            await self._runsc.create(container, self._bundle, folder, fifos)
            await self._runsc.restore(container, self._bundle, folder, fifos, image)
            await link.attach()
            return time.perf_counter() - begun
        finally:
            await link.close()
            await self._runsc.delete(container)
