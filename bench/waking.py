"""The first instruction of an asleep machine over HTTP against `runsc create` and `restore` of the same image."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import time
from asyncio.subprocess import DEVNULL
from pathlib import Path

from bench.connection import Connection
from bench.measurement import Measurement, seconds_of
from torpor_snapshotter.runtime import Runtime
from torpor_worker.guest_code import PYTHON
from torpor_worker.guest_link import GuestLink
from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.gvisor.namespace import command_prefix
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


def measure_new_machines(
    connection: Connection, runtime: Runtime, data_dir: Path, folder: Path, rounds: int
) -> Measurement:
    """A new machine → its first result, while one waits, and create → start of bare Python → its first words."""
    floor = _Floor(runtime, folder)
    torpor_seconds, floor_seconds = [], []
    for _ in range(1 + rounds):
        _wait_until_one_is_warm(data_dir)
        machine = ""

        def run() -> None:
            nonlocal machine
            machine = connection.post("/v1/run", {"code": "1 + 1"})["machine"]

        torpor_seconds.append(seconds_of(run))
        connection.post(f"/v1/machine/{machine}/sleep")
        floor_seconds.append(asyncio.run(floor.start_seconds()))
    return Measurement(
        "new machine and run `1 + 1` over HTTP", "runsc run of bare Python", torpor_seconds[1:], floor_seconds[1:], 0.15
    )


def _wait_until_one_is_warm(data_dir: Path) -> None:
    """Until a sandbox waits for a new machine; see `torpor_worker.beginnings`."""
    deadline = time.monotonic() + 120
    while not any(_is_warm(file) for file in (data_dir / "sandboxes" / "machines").glob("*/machine")):
        if time.monotonic() > deadline:
            raise RuntimeError("No sandbox waits for a new machine.")
        time.sleep(0.1)
    time.sleep(1)  # until it is attached, and nothing else is being made


def _is_warm(file: Path) -> bool:
    try:
        return file.read_text() == "warm"
    except FileNotFoundError:
        return False


def _newest_image(images: Path) -> Path:
    """The local image of a machine's last generation; see `torpor_worker.local_images`."""
    return max(images.iterdir(), key=lambda folder: int(folder.name)) / "image"


class _Floor:
    """Plain `runsc` with the spec that every sandbox has, and none of our code around it but the guest's protocol."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._folder = folder
        self._bundle = folder / "bundle"
        for made in (folder, self._bundle, self._bundle / "rootfs"):
            made.mkdir(exist_ok=True)
        (self._bundle / "config.json").write_bytes(spec_bytes())
        self._command = [*command_prefix(folder / "launcher"), str(runtime.runsc), f"--root={folder / 'state'}"]
        self._command += ["--platform=systrap", "--network=none", "--ignore-cgroups"]

    async def start_seconds(self) -> float:
        """From the start of `runsc create` until bare Python has said its first byte."""
        container = secrets.token_hex(8)
        bundle = self._folder / "bare"
        bundle.mkdir(exist_ok=True)
        spec = json.loads(spec_bytes())
        spec["process"]["args"] = [PYTHON, "-I", "-c", "import time; print(1, flush=True); time.sleep(1000)"]
        (bundle / "rootfs").mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(spec))
        reading, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            begun = time.perf_counter()
            await self._run((nothing, writing), "run", "--detach", f"--bundle={bundle}", container)
            await asyncio.to_thread(os.read, reading, 1)
            return time.perf_counter() - begun
        finally:
            for fd in (reading, writing, nothing):
                os.close(fd)
            await self._run((DEVNULL, DEVNULL), "delete", "--force", container)

    async def restore_seconds(self, image: Path) -> float:
        """From the start of `runsc create` until the guest has answered."""
        container = secrets.token_hex(8)
        fifos = Fifos.make(self._folder / container, "bench")
        link = GuestLink(fifos.stdin, fifos.stdout)
        await link.open()
        try:
            begun = time.perf_counter()
            with fifos.guest_ends() as ends:
                await self._run(ends, "create", f"--bundle={self._bundle}", container)
                await self._run(
                    ends, "restore", "--detach", f"--bundle={self._bundle}", f"--image-path={image}", container
                )
            await link.attach()
            return time.perf_counter() - begun
        finally:
            await self._run((DEVNULL, DEVNULL), "delete", "--force", container)
            await link.close()

    async def _run(self, ends: tuple[int, int], *arguments: str) -> None:
        # The spec names the root file system by the current folder of `runsc create`.
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            stdin=ends[0],
            stdout=ends[1],
            stderr=DEVNULL,
            cwd=self._runtime.rootfs.parent,
        )
        async with asyncio.timeout(120):
            if await process.wait() != 0:
                raise RuntimeError(f"runsc {arguments[0]} failed with status {process.returncode}.")
