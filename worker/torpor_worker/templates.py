"""Images that new machines start from: each made once, for one runtime and one version of the guest's code."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

import structlog

from torpor_worker.local_images import trusted_bytes, write_marker
from torpor_worker.sandbox import GuestState, Limits, Sandbox, SandboxError, SandboxHost

log = structlog.get_logger(__name__)

PYTHON: Final = "python"
"""The template of machines that ask for none."""

MODULES: Final[dict[str, tuple[str, ...]]] = {
    PYTHON: (),
    "data": (
        "numpy",
        "pandas",
        "matplotlib.pyplot",
        "matplotlib.backends.backend_agg",
        "sklearn.ensemble",
        "sklearn.linear_model",
        "sklearn.metrics",
        "sklearn.model_selection",
        "sklearn.pipeline",
        "sklearn.preprocessing",
    ),
}
"""What is imported in each template already; none of it is in the namespace."""

MAKING_LIMITS: Final = Limits(memory_bytes=1024 * 1024 * 1024)
QUIET_SECONDS: Final = 0.1
"""An interpreter that is ready, and says nothing for so long, has nothing more to say."""
_FRESH: Final = GuestState(last_position=-1, running=None, background=False)


class Templates:
    """The templates in a folder, `NAME-DIGEST/` each. Nothing in them is secret: every machine begins as such a copy.

    What is not whole, or of another runtime or guest, is removed by `prepare`. Any method may raise `SandboxError`.
    """

    def __init__(self, folder: Path, host: SandboxHost) -> None:
        """`folder` is this object's own."""
        self._folder = folder
        self._host = host
        self._sizes: dict[str, int] = {}
        """Templates that are there, and the bytes of their images."""
        self._being_made: Sandbox | None = None

    @property
    def memory_bytes(self) -> int:
        """What the sandbox of a template that is being made uses."""
        return 0 if self._being_made is None else self._being_made.memory_bytes()

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def image_bytes(self, name: str) -> int:
        """The size of its image, 0 if it is not there."""
        return self._sizes.get(name, 0)

    def image(self, name: str) -> Path:
        """The folder of its image, whether it is there or not."""
        return self._place(name) / "image"

    async def prepare(self) -> None:
        """See what an earlier process left, and remove what is of no use."""
        await asyncio.to_thread(self._load)

    async def make(self, name: str) -> None:
        """Start an interpreter, import what the template has, and write its image. Raises `SandboxError`, `OSError`."""
        place = self._place(name)
        await asyncio.to_thread(_empty, place)
        sandbox = await self._host.start(f"template-{name}", MAKING_LIMITS, preload=MODULES[name])
        self._being_made = sandbox
        try:
            await _hear_out(sandbox)
            if await sandbox.ping() != _FRESH:
                raise SandboxError(f"The interpreter of template {name} is not as a new one should be.")
            await sandbox.checkpoint(place / "image")
        finally:
            self._being_made = None
            await asyncio.shield(sandbox.destroy())
        await asyncio.to_thread(write_marker, place)
        self._load_one(name)
        log.info("A template was made", action="template", template=name, image_bytes=self.image_bytes(name))

    async def restore(self, name: str, machine: str, limits: Limits) -> Sandbox:
        """A sandbox restored from it. Raises `SandboxError`, also if what comes is not a fresh interpreter."""
        sandbox, state = await self._host.restore(machine, self.image(name), limits)
        if state != _FRESH:
            await sandbox.destroy()
            raise SandboxError(f"The image of template {name} is not that of a fresh interpreter.")
        return sandbox

    async def discard(self, name: str) -> None:
        """Throw its image away: it does not restore."""
        self._sizes.pop(name, None)
        await asyncio.to_thread(_remove, self._place(name))

    def _place(self, name: str) -> Path:
        facts = json.dumps([self._host.version, MODULES[name]])
        return self._folder / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in MODULES:
            self._load_one(name)
        usable = {self._place(name) for name in self._sizes}
        for place in self._folder.iterdir():
            if place not in usable:
                _remove(place)

    def _load_one(self, name: str) -> None:
        size_bytes = trusted_bytes(self._place(name))
        if size_bytes is not None:
            self._sizes[name] = size_bytes


async def _hear_out(sandbox: Sandbox) -> None:
    """Take what it said while it started (a library's warning): nobody else is to be told."""
    while True:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await sandbox.receive()
        except TimeoutError:
            return await sandbox.acknowledge()


def _empty(place: Path) -> None:
    _remove(place)
    place.mkdir(mode=0o700)


def _remove(place: Path) -> None:
    # The marker goes first: what is left of a removal that was cut short is not trusted.
    for marker in place.glob("*.json"):
        marker.unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
