"""The floor: plain `runsc` with the spec that every sandbox has, and none of our code but the guest's protocol."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from asyncio.subprocess import DEVNULL
from dataclasses import dataclass
from pathlib import Path

from torpor_snapshotter.runtime import Runtime
from torpor_worker.guest_code import PYTHON
from torpor_worker.guest_link import GuestLink
from torpor_worker.gvisor.fifos import Fifos
from torpor_worker.gvisor.namespace import command_prefix
from torpor_worker.gvisor.spec import spec_bytes

_COMMAND_SECONDS = 120
_SETTLE_SECONDS = 0.3
"""What a container that was just created still does for itself."""


@dataclass(frozen=True, slots=True)
class _Created:
    """A container that has not started."""

    container: str
    fifos: Fifos
    link: GuestLink


class Floor:
    """Sandboxes of our own in a folder. Each call leaves none behind."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._folder = folder
        self._bundle = folder / "bundle"
        for made in (folder, self._bundle, self._bundle / "rootfs"):
            made.mkdir(exist_ok=True)
        (self._bundle / "config.json").write_bytes(spec_bytes())
        self._command = [*command_prefix(folder / "launcher"), str(runtime.runsc), f"--root={folder / 'state'}"]
        self._command += ["--platform=systrap", "--network=none", "--ignore-cgroups"]

    def start_seconds(self, count: int = 1) -> float:
        """From the start of `runsc run` until bare Python has said its first byte; of so many at once."""
        return asyncio.run(self._start_seconds(count))

    def restore_seconds(self, image: Path, count: int = 1) -> float:
        """From the start of `runsc restore` into a container created before until the guest has answered."""
        return asyncio.run(self._restore_seconds(image, count))

    async def _start_seconds(self, count: int) -> float:
        bundle = self._folder / "bare"
        (bundle / "rootfs").mkdir(exist_ok=True, parents=True)
        spec = json.loads(spec_bytes())
        spec["process"]["args"] = [PYTHON, "-I", "-c", "import time; print(1, flush=True); time.sleep(1000)"]
        (bundle / "config.json").write_text(json.dumps(spec))
        containers = [secrets.token_hex(8) for _ in range(count)]
        try:
            begun = time.perf_counter()
            await asyncio.gather(*(self._start(container, bundle) for container in containers))
            return time.perf_counter() - begun
        finally:
            await self._delete(*containers)

    async def _start(self, container: str, bundle: Path) -> None:
        reading, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            await self._run((nothing, writing), "run", "--detach", f"--bundle={bundle}", container)
            await asyncio.to_thread(os.read, reading, 1)
        finally:
            for descriptor in (reading, writing, nothing):
                os.close(descriptor)

    async def _restore_seconds(self, image: Path, count: int) -> float:
        created = [await self._create() for _ in range(count)]
        try:
            await asyncio.sleep(_SETTLE_SECONDS)
            begun = time.perf_counter()
            await asyncio.gather(*(self._restore(one, image) for one in created))
            return time.perf_counter() - begun
        finally:
            await self._end(created)

    async def _create(self) -> _Created:
        container = secrets.token_hex(8)
        fifos = Fifos.make(self._folder / container, "bench")
        link = GuestLink(fifos.stdin, fifos.stdout)
        await link.open()
        with fifos.guest_ends() as ends:
            await self._run(ends, "create", f"--bundle={self._bundle}", container)
        return _Created(container, fifos, link)

    async def _restore(self, created: _Created, image: Path) -> None:
        with created.fifos.guest_ends() as ends:
            arguments = ("--detach", f"--bundle={self._bundle}", f"--image-path={image}")
            await self._run(ends, "restore", *arguments, created.container)
        await created.link.attach()

    async def _end(self, created: list[_Created]) -> None:
        await self._delete(*(one.container for one in created))
        for one in created:
            await one.link.close()

    async def _delete(self, *containers: str) -> None:
        for container in containers:
            await self._run((DEVNULL, DEVNULL), "delete", "--force", container)

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
        async with asyncio.timeout(_COMMAND_SECONDS):
            if await process.wait() != 0:
                raise RuntimeError(f"runsc {arguments[0]} failed with status {process.returncode}.")
