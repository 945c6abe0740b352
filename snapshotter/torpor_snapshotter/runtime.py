"""What a snapshot needs to wake: a sandbox binary and a root filesystem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Runtime:
    """One sandbox binary and one root filesystem, in a folder `<data>/runtimes/<series>/`.

    The folder holds `runsc`, `rootfs.erofs` and `runtime.json`; the last is written last, so a folder without it is
    half-made and never used.
    """

    series: str
    """Names the runtimes that can wake each other's snapshots: version stamp and first digits of the root digest."""
    runsc: Path
    runsc_version: str
    runsc_sha256: str
    rootfs: Path
    rootfs_sha256: str
