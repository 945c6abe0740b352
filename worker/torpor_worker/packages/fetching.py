"""Packages of the operator's index, for whoever in this process wants some."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from torpor_worker.packages.asked import PackageRefused, Rules, Wanted, Wheel
from torpor_worker.packages.fair_slots import FairSlots
from torpor_worker.packages.wheel_cache import WheelCache

log = structlog.get_logger(__name__)

AT_ONCE = 4
OF_ONE_ACCOUNT = 2
SECONDS = 300.0
ANSWER_LIMIT_BYTES = 1 << 20
PIECE_BYTES = 96 << 10
OFF = (
    "This server hands in no packages: its operator names an index in TORPOR_PACKAGE_INDEX, and the packages that it"
    " allows in TORPOR_PACKAGE_ALLOW."
)


class Packages:
    """Chooses and fetches wheels, each time in a process of its own that ends in time."""

    def __init__(self, rules: Rules, folder: Path) -> None:
        """`folder` holds wheels that were fetched before."""
        self._rules = rules
        self._folder = folder
        self._cache = WheelCache(folder)
        self._slots = FairSlots(AT_ONCE, OF_ONE_ACCOUNT)

    async def fetch(self, account: str, wanted: Wanted) -> list[Wheel]:
        """The wheels to hand in, on this host's disk; accounts take turns. Raises `PackageRefused`."""
        if self._rules.index is None:
            raise PackageRefused(OFF)
        request = {
            "rules": {
                "index": self._rules.index,
                "allow": sorted(self._rules.allow),
                "limit_bytes": self._rules.limit_bytes,
            },
            "cache": str(self._folder),
            "wanted": wanted.fields(),
            "seconds": SECONDS,
        }
        async with self._slots.one(account):
            answer = await _asked(json.dumps(request).encode())
            await asyncio.to_thread(self._cache.prune)
        if "refused" in answer:
            raise PackageRefused(str(answer["refused"]))
        return [Wheel(**fields) for fields in answer["wheels"]]

    async def archive(self, wheels: Sequence[Wheel]) -> AsyncIterator[bytes]:
        """A tar archive of wheels, piece by piece. Raises `PackageRefused` if one is not here any more."""
        for wheel in wheels:
            info = tarfile.TarInfo(wheel.filename)
            info.size = wheel.size_bytes
            yield info.tobuf(tarfile.PAX_FORMAT)
            sent = 0
            try:
                file = await asyncio.to_thread(self._cache.path(wheel.sha256).open, "rb")
            except FileNotFoundError:
                raise PackageRefused(f"{wheel.filename} is gone again; ask once more.") from None
            with file:
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    sent += len(piece)
                    yield piece
            if sent != wheel.size_bytes:
                raise PackageRefused(f"{wheel.filename} has changed on the server's disk; ask once more.")
            yield bytes(-sent % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)


async def _asked(request: bytes) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "torpor_worker.packages",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=ANSWER_LIMIT_BYTES,
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, problems = await process.communicate(request)
    except TimeoutError:
        raise PackageRefused(f"The packages were not there within {SECONDS:g} s; ask once more.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    answer: Any = None
    with contextlib.suppress(ValueError):
        answer = json.loads(said)
    if process.returncode != 0 or not isinstance(answer, dict):
        text = problems.decode("utf-8", "replace")[-2000:]
        log.error("Packages could not be chosen", action="packages", status=process.returncode, said=text)
        raise PackageRefused("The server failed to choose packages; its log says why.")
    return answer
