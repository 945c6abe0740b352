"""What an object says of itself, before its frames: which image of which machine it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

_LONGEST_NAME: Final = 255


class BadManifest(ValueError):
    """The bytes are no manifest."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of an image."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an image, in the order of their frames, and what its saver said of it."""

    files: tuple[ImageFile, ...]
    fields: dict[str, Any]
    """Machine, account, tags, generation, line, parent, position, running instruction, runtime series and digests."""

    @property
    def image_bytes(self) -> int:
        """The size of the image, in bytes."""
        return sum(file.size_bytes for file in self.files)

    def to_json(self) -> bytes:
        """UTF-8 JSON, the same for equal manifests."""
        files = [{"name": file.name, "size_bytes": file.size_bytes} for file in self.files]
        content = {"files": files, "fields": self.fields}
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """The manifest in `data`. Raises `BadManifest`."""
        try:
            content = json.loads(data)
            files = tuple(ImageFile(file["name"], file["size_bytes"]) for file in content["files"])
            fields = content["fields"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadManifest(f"not a manifest: {error}") from error
        for file in files:
            _check_file(file)
        if len({file.name for file in files}) < len(files) or not isinstance(fields, dict):
            raise BadManifest("not a manifest: a file is named twice, or the fields are no object")
        return cls(files, fields)


def _check_file(file: ImageFile) -> None:
    plain = isinstance(file.name, str) and 0 < len(file.name) <= _LONGEST_NAME and not set(file.name) & {"/", "\0"}
    if not plain or file.name in {".", ".."}:
        raise BadManifest(f"{file.name!r} is no name of a file of an image")
    if type(file.size_bytes) is not int or file.size_bytes < 0:
        raise BadManifest(f"the size of {file.name!r} is none")
