"""Images that new machines start from: each made once, for one runtime and one version of the guest's code."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from torpor_worker.local_images import MARKER, trusted_bytes, write_marker
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
REHEARSALS: Final = 2
"""The second still takes about a tenth off the first answer."""
_FRESH: Final = GuestState(last_position=-1, running=None, background=False)


@dataclass(frozen=True, slots=True)
class _Made:
    """A template that is whole."""

    folder: Path
    """Its name is random: what is read from this path is this image, or not there any more."""
    image_bytes: int


class Templates:
    """The templates in a folder, `NAME-DIGEST/ID/image` each. Nothing in them is secret: every machine begins as one.

    What is not whole, or of another runtime or guest, is removed by `prepare`. Any method may raise `SandboxError`.
    """

    def __init__(self, folder: Path, host: SandboxHost) -> None:
        """`folder` is this object's own."""
        self._folder = folder
        self._host = host
        self._there: dict[str, _Made] = {}
        self._being_made: Sandbox | None = None

    @property
    def memory_bytes(self) -> int:
        """What the sandbox of a template that is being made uses."""
        return 0 if self._being_made is None else self._being_made.memory_bytes()

    def __contains__(self, name: str) -> bool:
        return name in self._there

    def image_bytes(self, name: str) -> int:
        """The size of its image, 0 if it is not there."""
        return self._there[name].image_bytes if name in self._there else 0

    def image(self, name: str) -> Path:
        """The folder of its image. Raises `SandboxError` if it is not there."""
        if name not in self._there:
            raise SandboxError(f"Template {name} is not there.")
        return self._there[name].folder / "image"

    def version(self, name: str) -> str:
        """Names this one image. Raises `SandboxError` if it is not there."""
        return self.image(name).parent.name

    async def prepare(self) -> None:
        """See what an earlier process left, and remove what is of no use."""
        await asyncio.to_thread(self._load)

    async def make(self, name: str) -> None:
        """Start an interpreter, import what the template has, and write its image. Raises `SandboxError`, `OSError`."""
        folder = self._place(name) / secrets.token_hex(16)
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
        sandbox = await self._host.start(f"template-{name}", MAKING_LIMITS, preload=MODULES[name])
        self._being_made = sandbox
        try:
            await _hear_out(sandbox)
            await _rehearse(sandbox)  # what a first instruction writes is then the template's, and no machine's own
            if await sandbox.ping() != _FRESH:
                raise SandboxError(f"The interpreter of template {name} is not as a new one should be.")
            await sandbox.checkpoint(folder / "image")
        finally:
            self._being_made = None
            await asyncio.shield(sandbox.destroy())
        await asyncio.to_thread(write_marker, folder)
        await asyncio.to_thread(self._load)
        log.info("A template was made", action="template", template=name, image_bytes=self.image_bytes(name))

    async def restore(self, name: str, machine: str, limits: Limits, *, waited_for: bool = True) -> Sandbox:
        """A sandbox restored from it. Raises `SandboxError`, also if what comes is not a fresh interpreter."""
        sandbox, state = await self._host.restore(machine, self.image(name), limits, waited_for=waited_for)
        if state != _FRESH:
            await sandbox.destroy()
            raise SandboxError(f"The image of template {name} is not that of a fresh interpreter.")
        return sandbox

    async def restore_ahead(self, name: str) -> Sandbox:
        """One that is to wait for a machine; it has rehearsed. Raises `SandboxError`."""
        sandbox = await self.restore(name, "warm", MAKING_LIMITS, waited_for=False)
        try:
            await _rehearse(sandbox)
        except BaseException:
            await asyncio.shield(sandbox.destroy())
            raise
        return sandbox

    async def discard(self, name: str) -> None:
        """Throw its image away: it does not restore."""
        if (made := self._there.pop(name, None)) is not None:
            await asyncio.to_thread(_remove, made.folder)

    def _place(self, name: str) -> Path:
        facts = json.dumps([self._host.version, MODULES[name], REHEARSALS])
        return self._folder / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        places = {self._place(name): name for name in MODULES}
        for place in self._folder.iterdir():
            if place not in places:
                _remove(place)
                continue
            for folder in place.iterdir():
                size_bytes = trusted_bytes(folder)
                if size_bytes is None or self._there.get(places[place], _Made(folder, 0)).folder != folder:
                    _remove(folder)
                else:
                    self._there[places[place]] = _Made(folder, size_bytes)


async def _hear_out(sandbox: Sandbox) -> None:
    """Take what it said while it started (a library's warning): nobody else is to be told."""
    while True:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await sandbox.receive()
        except TimeoutError:
            return await sandbox.acknowledge()


async def _rehearse(sandbox: Sandbox) -> None:
    for _ in range(REHEARSALS):
        await sandbox.rehearse()


def _remove(folder: Path) -> None:
    # The marker goes first: what is left of a removal that was cut short is not trusted.
    for marker in folder.rglob(MARKER):
        marker.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
