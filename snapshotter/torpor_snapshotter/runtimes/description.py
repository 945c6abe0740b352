"""What a runtime in the store consists of: two files in compressed parts, each named by the digest of its content."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.folder import built_for

FORMAT_VERSION: Final = 1
PART_BYTES: Final = 16 << 20
LONGEST_BYTES: Final = 4 << 20
"""Of a description."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,100}")
_NAMES: Final = ("series", "runsc_version", "built_for")
_MOST_BYTES: Final = 64 << 30


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file; all but the last have `PART_BYTES`."""

    sha256: str
    size_bytes: int

    @property
    def key(self) -> str:
        """Of its object, one zstd frame. Equal parts of several runtimes are one object."""
        return f"runtimes/parts/{self.sha256}"


@dataclass(frozen=True, slots=True)
class FileParts:
    """One file of a runtime."""

    sha256: str
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return sum(part.size_bytes for part in self.parts)

    @classmethod
    def of(cls, path: Path) -> FileParts:
        """Read a file and digest it."""
        whole, parts = hashlib.sha256(), []
        with path.open("rb") as file:
            while content := file.read(PART_BYTES):
                whole.update(content)
                parts.append(Part(hashlib.sha256(content).hexdigest(), len(content)))
        return cls(whole.hexdigest(), tuple(parts))


@dataclass(frozen=True, slots=True)
class Description:
    """A runtime as an object of its own says it."""

    series: str
    runsc_version: str
    built_for: str
    """The series of the lock that it was built from."""
    runsc: FileParts
    rootfs: FileParts

    @classmethod
    def of(cls, runtime: Runtime) -> Description:
        """Read both files of an installed runtime. Raises `OSError`."""
        return cls(
            runtime.series,
            runtime.runsc_version,
            built_for(runtime),
            FileParts.of(runtime.runsc),
            FileParts.of(runtime.rootfs),
        )

    @property
    def files(self) -> tuple[tuple[str, FileParts], ...]:
        """Both files with the names that they have in the runtime's folder."""
        return ("runsc", self.runsc), ("rootfs.erofs", self.rootfs)

    @property
    def facts(self) -> dict[str, str]:
        """As manifests name the runtime that they need."""
        return {
            "series": self.series,
            "runsc_version": self.runsc_version,
            "runsc_sha256": self.runsc.sha256,
            "rootfs_sha256": self.rootfs.sha256,
        }

    @property
    def key(self) -> str:
        """Of its own object."""
        return f"runtimes/{self.series}/{self.sha256}"

    @property
    def sha256(self) -> str:
        """Of its own object."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def keys(self) -> tuple[str, ...]:
        """Of every object that the runtime needs."""
        return (*dict.fromkeys(part.key for _, file in self.files for part in file.parts), self.key)

    def to_bytes(self) -> bytes:
        """JSON, keys sorted, no spaces."""
        content = {
            "format": FORMAT_VERSION,
            "series": self.series,
            "runsc_version": self.runsc_version,
            "built_for": self.built_for,
            "files": {
                name: {"sha256": file.sha256, "parts": [[part.sha256, part.size_bytes] for part in file.parts]}
                for name, file in self.files
            },
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Description:
        """The description that `to_bytes` was called for. Raises ValueError for anything else."""
        try:
            content: dict[str, Any] = json.loads(data)
            if content["format"] != FORMAT_VERSION:
                raise ValueError(f"format {content['format']!r} is not read here")
            files = {name: _file(content["files"][name]) for name in ("runsc", "rootfs.erofs")}
            series, runsc_version, lock = (_matching(_NAME, content[name]) for name in _NAMES)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks {error}") from error
        return cls(series, runsc_version, lock, files["runsc"], files["rootfs.erofs"])


def _file(content: dict[str, Any]) -> FileParts:
    parts = []
    for sha256, size_bytes in content["parts"]:
        if type(size_bytes) is not int or not 0 < size_bytes <= PART_BYTES:
            raise ValueError(f"{size_bytes!r} is not the size of a part")
        parts.append(Part(_matching(_SHA256, sha256), size_bytes))
    file = FileParts(_matching(_SHA256, content["sha256"]), tuple(parts))
    if file.size_bytes > _MOST_BYTES:
        raise ValueError(f"a file of {file.size_bytes} bytes is no part of a runtime")
    return file


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is not what it should be")
    return value
