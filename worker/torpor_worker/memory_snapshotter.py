"""The in-memory twin of the snapshotter, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torpor_snapshotter.key import pack_key
from torpor_worker.snapshots import Parent, SnapshotterError, Stored


class MemorySnapshotter:
    """Implements `Snapshotter`. `failures` is how many of the next `store` calls are refused.

    `damaged_reads` is how many of the next `fetch` calls find other bytes than were written.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}
        self.fields: dict[str, dict[str, Any]] = {}
        self.packs: dict[str, tuple[str, ...]] = {}
        self.parents: dict[str, Parent | None] = {}
        """What each stored image was said to be like."""
        self.destroyed: set[str] = set()
        """Machines whose keys were destroyed: nothing of them is fetched any more."""
        self.failures = 0
        self.damaged_reads = 0
        self.derivations_left: int | None = None
        """After so many the store refuses them; None: it does not."""

    async def store(self, image: Path, key: str, fields: dict[str, Any], parent: Parent | None = None) -> Stored:
        """See `Snapshotter`."""
        if self.failures:
            self.failures -= 1
            raise SnapshotterError("the store refuses")
        files = self._read(image)
        self.objects[key], self.fields[key], self.parents[key] = files, fields, parent
        size_bytes = sum(map(len, files.values()))
        self.packs[key] = (pack_key(key),)
        return Stored(key, self._digest(files), size_bytes, size_bytes, self.packs[key])

    async def derive(
        self, source: str, sha256: str, keys: Mapping[str, str], fields: dict[str, Any]
    ) -> dict[str, Stored]:
        """See `Snapshotter`."""
        files = self.objects.get(source)
        if files is None or self._digest(files) != sha256:
            raise SnapshotterError(f"{source} is damaged or missing", retryable=False)
        size_bytes = sum(map(len, files.values()))
        derived = {}
        for machine, key in keys.items():
            if self.derivations_left is not None:
                if not self.derivations_left:
                    raise SnapshotterError("the store refuses")
                self.derivations_left -= 1
            self.objects[key], self.fields[key] = files, {**self.fields[source], **fields, "machine": machine}
            self.packs[key] = self.packs[source]
            derived[machine] = Stored(key, sha256, 0, size_bytes, self.packs[key])
        return derived

    async def fetch(self, key: str, sha256: str, into: Path, like: Parent | None = None) -> float:
        """See `Snapshotter`."""
        if self.damaged_reads:
            self.damaged_reads -= 1
            raise SnapshotterError(f"{key} is damaged", retryable=False)
        files = self.objects.get(key)
        if files is not None and self.fields[key]["machine"] in self.destroyed:
            raise SnapshotterError(f"the key of {key} is missing")
        if files is None or self._digest(files) != sha256:
            raise SnapshotterError(f"{key} is damaged or missing", retryable=False)
        self._write(into, files)
        return 0.0

    async def destroy_key(self, machine: str) -> None:
        """See `Snapshotter`."""
        self.destroyed.add(machine)

    async def delete(self, key: str) -> None:
        """See `Snapshotter`."""
        self.objects.pop(key, None)

    async def list(self) -> list[str]:
        """See `Snapshotter`."""
        return sorted(self.objects)

    async def close(self) -> None:
        """See `Snapshotter`."""

    @staticmethod
    def _read(image: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in image.iterdir()}

    @staticmethod
    def _write(image: Path, files: dict[str, bytes]) -> None:
        image.mkdir()
        for name, body in files.items():
            (image / name).write_bytes(body)

    @staticmethod
    def _digest(files: dict[str, bytes]) -> str:
        return hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()
