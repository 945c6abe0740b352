"""Wheels on the host's disk, each under the digest of its bytes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from contextlib import suppress
from pathlib import Path

from torpor_worker.packages.asked import PackageRefused
from torpor_worker.packages.index import METADATA_LIMIT_BYTES, IndexFile, PackageIndex

KEPT_BYTES = 2 << 30
PIECE_BYTES = 1 << 20


class WheelCache:
    """Those that were fetched. A file that is there under its name is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where one lies, or would."""
        return self._folder / f"{sha256}.whl"

    def fetch(self, index: PackageIndex, file: IndexFile, limit_bytes: int) -> int:
        """Have a wheel here, with the digest that the index says; its size. Raises `PackageRefused`."""
        path = self.path(file.sha256)
        if path.is_file() and _digest(path) == file.sha256:
            os.utime(path)
            size = path.stat().st_size
            if size > limit_bytes:
                raise too_large(file.filename)
            return size
        part = self._folder / f"{file.sha256}.{os.getpid()}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with part.open("wb") as out, index.wheel(file, limit_bytes) as pieces:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    out.write(piece)
            if digest.hexdigest() != file.sha256:
                raise PackageRefused(f"{file.filename} is not what the package index says it is: its digest differs.")
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def metadata(self, file: IndexFile) -> bytes:
        """What a wheel that is here says of itself. Raises `PackageRefused`."""
        try:
            with zipfile.ZipFile(self.path(file.sha256)) as archive:
                found = [
                    info
                    for info in archive.infolist()
                    if info.filename.endswith(".dist-info/METADATA") and info.filename.count("/") == 1
                ]
                if len(found) == 1 and found[0].file_size <= METADATA_LIMIT_BYTES:
                    with archive.open(found[0]) as opened:
                        return opened.read(METADATA_LIMIT_BYTES)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError):
            pass
        raise PackageRefused(f"{file.filename} is no wheel.")

    def prune(self, keep_bytes: int = KEPT_BYTES) -> None:
        """Remove those that were used longest ago, beyond so many bytes, and what a killed process left."""
        entries = []
        for entry in self._folder.iterdir():
            with suppress(FileNotFoundError):  # others fetch, and remove, at the same time
                entries.append((entry.stat(), entry))
        size = 0
        for about, entry in sorted(entries, key=lambda each: each[0].st_mtime, reverse=True):
            size += about.st_size
            if size > keep_bytes:
                entry.unlink(missing_ok=True)


def too_large(filename: str) -> PackageRefused:
    """What is refused because of its size."""
    return PackageRefused(
        f"With {filename} it would be more than the server hands in at once (its operator sets TORPOR_PACKAGE_BYTES)."
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
