"""The seam between a worker and its snapshotter process. Paths go across, never bytes of an image."""

from __future__ import annotations

from collections.abc import Mapping
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
    """What was added to the store for it."""
    image_bytes: int
    packs: tuple[str, ...]
    """Keys of the packs that it needs."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The snapshot that a new one is like, of the same machine or another whose key is there; pages are shared."""

    manifest_key: str
    manifest_sha256: str
    image: Path | None
    """Its local image, if there is one: a comparison with it is quick."""


@dataclass(frozen=True, slots=True)
class DescribedRuntime:
    """What the store has, or would have, of a runtime."""

    key: str
    """Of the object that describes it."""
    sha256: str
    """Of that object."""
    keys: tuple[str, ...]
    """Of every object that it needs."""
    description: str


class Snapshotter(Protocol):
    """Images to stored snapshots and back."""

    async def store(self, image: Path, key: str, fields: dict[str, Any], parent: Parent | None = None) -> Stored:
        """Put what the parent lacks into a pack, and a manifest under `key`; verify both.

        `fields` go into the manifest; `machine`, a name, and `generation` must be among them. What only a parent that
        cannot be read has is stored again.
        """
        ...

    async def derive(
        self, source: str, sha256: str, keys: Mapping[str, str], fields: dict[str, Any]
    ) -> dict[str, Stored]:
        """Put a manifest for each machine under its key, all with `fields`, that needs the same packs as `source`.

        They stay readable when the key of the source's machine is destroyed. What became of them, by machine. Those
        that were put before an error stay.
        """
        ...

    async def fetch(self, key: str, sha256: str, into: Path, like: Parent | None = None) -> float:
        """Bring the image back into the new folder `into`, every checksum verified.

        What it has of `like` is copied from that one's local image. The seconds that were left to work on it when the
        last byte had come from the store.
        """
        ...

    async def destroy_key(self, machine: str) -> None:
        """Make what is stored of a machine unreadable for ever; no error if that was done."""
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
