"""The seam between a worker and its snapshotter process. Paths go across, never bytes of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class SnapshotterError(Exception):
    """An image could not be stored or fetched; `retryable` says whether trying again may help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an image in the store."""

    manifest_key: str
    manifest_sha256: str
    stored_bytes: int
    image_bytes: int


class Snapshotter(Protocol):
    """Images to stored snapshots and back."""

    async def store(self, image: Path, key: str, fields: dict[str, Any]) -> Stored:
        """Encode the image, put it under `key`, verify what was put. `fields` go into the manifest."""
        ...

    async def fetch(self, key: str, sha256: str, into: Path) -> None:
        """Bring the image back into the new folder `into`, every checksum verified."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; no error if it is not there."""
        ...

    async def list(self) -> list[str]:
        """Every key in the store."""
        ...

    async def close(self) -> None:
        """End the process, after the work in hand."""
        ...
