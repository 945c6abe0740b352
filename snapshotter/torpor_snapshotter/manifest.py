"""What a snapshot is: which image of which machine, and where every page and file of it is stored."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import zstandard
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from torpor_snapshotter.image import ImageFile
from torpor_snapshotter.pack import Pack
from torpor_snapshotter.page_map import BadPageMap, PageMap, page_count

PAGED_FILE: Final = "pages.img"
LONGEST_WHOLE_FILE_BYTES: Final = 16 << 20
LONGEST_BODY_BYTES: Final = 1 << 30

_LONGEST_NAME: Final = 255
_JSON_LENGTH: Final = struct.Struct("<I")
_COMPRESSION_LEVEL: Final = 9


class BadManifest(ValueError):
    """The bytes are no manifest."""


@dataclass(frozen=True, slots=True)
class FrameAddress:
    """A frame with a small file: the place of its pack in the list, and its number there."""

    pack: int
    frame: int


@dataclass(frozen=True, slots=True)
class WholeFile:
    """Where a file that is not kept in pages is."""

    content: FrameAddress
    dictionary: FrameAddress | None
    """An earlier state of the file, itself compressed without one, that it was compressed with."""
    dictionary_bytes: int
    """The size of that state; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a wake, and the next save, must know."""

    fields: dict[str, Any]
    """Machine, account, tags, generation, line, parent, position, running instruction, runtime series and digests."""
    files: tuple[ImageFile, ...]
    whole: dict[str, WholeFile]
    """Files that are kept as they are, by name; all others are kept in pages."""
    packs: tuple[Pack, ...]
    page_map: PageMap
    """The pages of all files that are kept in pages, in the order of the files."""
    differences: PageMap
    """What is to be XORed with each of those pages; 0 for most of them, which are as they are in their pack."""
    digest_key: bytes = field(repr=False)
    """What the digests in the packs' indexes are keyed with; the same along a line."""

    @property
    def image_bytes(self) -> int:
        """The size of the image, in bytes."""
        return sum(file.size_bytes for file in self.files)

    @property
    def paged(self) -> tuple[ImageFile, ...]:
        """The files that the page map is about."""
        return tuple(file for file in self.files if file.name not in self.whole)

    def to_bytes(self, wrapping_key: bytes) -> bytes:
        """Compressed, with the packs' secrets wrapped (RFC 3394) by a key of the machine's."""
        differences = self.differences.to_bytes() if any(pack.differences for pack in self.packs) else b""
        content = {
            "fields": self.fields,
            "files": [_file_to_json(file, self.whole.get(file.name)) for file in self.files],
            "packs": [
                {
                    "key": pack.key,
                    "secret": aes_key_wrap(wrapping_key, pack.secret).hex(),
                    "pages": pack.pages,
                    "differences": pack.differences,
                    "frames": len(pack.frame_bytes),
                }
                for pack in self.packs
            ],
            "difference_bytes": len(differences),
            "digest_key": self.digest_key.hex(),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        frames = b"".join(np.array(pack.frame_bytes, "<u4").tobytes() for pack in self.packs)
        body = _JSON_LENGTH.pack(len(text)) + text + frames + self.page_map.to_bytes() + differences
        return zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(body)

    @classmethod
    def from_bytes(cls, data: bytes, wrapping_key: bytes) -> Manifest:
        """The manifest that `to_bytes` was called for. Raises `BadManifest`."""
        try:
            body = zstandard.ZstdDecompressor().decompress(data, max_output_size=LONGEST_BODY_BYTES)
            (length,) = _JSON_LENGTH.unpack_from(body)
            start = _JSON_LENGTH.size + length
            content = json.loads(body[_JSON_LENGTH.size : start])
            packs = []
            for pack in content["packs"]:
                secret = aes_key_unwrap(wrapping_key, bytes.fromhex(pack["secret"]))
                frame_bytes = np.frombuffer(body, "<u4", pack["frames"], start).tolist()
                start += 4 * pack["frames"]
                packs.append(Pack(pack["key"], secret, pack["pages"], pack.get("differences", 0), tuple(frame_bytes)))
            files = tuple(ImageFile(file["name"], file["size_bytes"]) for file in content["files"])
            whole = {file["name"]: _whole_from_json(file["whole"]) for file in content["files"] if "whole" in file}
            pages = sum(page_count(file.size_bytes) for file in files if file.name not in whole)
            end = len(body) - content.get("difference_bytes", 0)
            page_map = PageMap.from_bytes(body[start:end], pages, [pack.pages for pack in packs])
            differences = PageMap.of(np.zeros(pages, np.uint64))
            if body[end:]:
                differences = PageMap.from_bytes(body[end:], pages, [pack.differences for pack in packs])
            digest_key = bytes.fromhex(content["digest_key"])
            fields = content["fields"]
        except (ValueError, KeyError, TypeError, struct.error, zstandard.ZstdError, InvalidUnwrap, BadPageMap) as error:
            raise BadManifest(f"not a manifest: {error}") from error
        for file in files:
            _check_file(file)
        if len({file.name for file in files}) < len(files):
            raise BadManifest("not a manifest: a file is named twice")
        return cls(fields, files, whole, tuple(packs), page_map, differences, digest_key)


def is_kept_whole(file: ImageFile) -> bool:
    """Whether a save keeps the file as it is, and not in pages."""
    return file.name != PAGED_FILE and file.size_bytes <= LONGEST_WHOLE_FILE_BYTES


def _file_to_json(file: ImageFile, whole: WholeFile | None) -> dict[str, Any]:
    content: dict[str, Any] = {"name": file.name, "size_bytes": file.size_bytes}
    if whole is not None:
        dictionary = whole.dictionary
        content["whole"] = {
            "content": [whole.content.pack, whole.content.frame],
            "dictionary": None if dictionary is None else [dictionary.pack, dictionary.frame],
            "dictionary_bytes": whole.dictionary_bytes,
        }
    return content


def _whole_from_json(content: dict[str, Any]) -> WholeFile:
    dictionary = content["dictionary"]
    return WholeFile(
        FrameAddress(*content["content"]),
        None if dictionary is None else FrameAddress(*dictionary),
        content["dictionary_bytes"],
    )


def _check_file(file: ImageFile) -> None:
    plain = isinstance(file.name, str) and 0 < len(file.name) <= _LONGEST_NAME and not set(file.name) & {"/", "\0"}
    if not plain or file.name in {".", ".."}:
        raise BadManifest(f"{file.name!r} is no name of a file of an image")
    if type(file.size_bytes) is not int or file.size_bytes < 0:
        raise BadManifest(f"the size of {file.name!r} is none")
