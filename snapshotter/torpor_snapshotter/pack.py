"""Packs: the objects with the pages and small files that a save adds, in encrypted frames.

Frame `n` of a pack is sealed with AES-256-GCM under the pack's own random key, with `n` as the nonce. First come the
pages, `FRAME_PAGES` in each frame but the last; then, likewise, differences of pages; then small files, one each; at
last the digests of the pages.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from torpor_snapshotter.page_map import PAGE_BYTES

FRAME_PAGES: Final = 128
FRAME_BYTES: Final = FRAME_PAGES * PAGE_BYTES
TAG_BYTES: Final = 16

_FIRST_FRAMES: Final = 32
_FIRST_FRAMES_LEVEL: Final = 9
_PAGES_LEVEL: Final = 3
_DIFFERENCES_LEVEL: Final = 9
_FILE_LEVEL: Final = 9
_LEAST_WINDOW_LOG: Final = 17


class BadFrame(ValueError):
    """A frame's bytes are not those that were written."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack as manifests describe it."""

    key: str
    """Of the object."""
    secret: bytes = field(repr=False)
    """The 32 bytes that its frames are sealed with."""
    pages: int
    differences: int
    """Pages that are kept as what they are XORed with another page, in frames of their own."""
    frame_bytes: tuple[int, ...]
    """The size of each frame in the object, one after the other without gaps."""

    @property
    def size_bytes(self) -> int:
        """Of the object."""
        return sum(self.frame_bytes)

    @property
    def index_frame(self) -> int:
        """The frame that holds the digests of the pages."""
        return len(self.frame_bytes) - 1

    @property
    def page_frames(self) -> int:
        """How many frames hold pages; they are the first ones."""
        return -(-self.pages // FRAME_PAGES)

    @property
    def difference_frames(self) -> int:
        """How many frames hold differences; they follow those that hold pages."""
        return -(-self.differences // FRAME_PAGES)

    def pages_in(self, frame: int) -> int:
        """How many pages, or differences, a frame holds; 0 if it is another kind of frame."""
        if frame < self.page_frames:
            return min(FRAME_PAGES, self.pages - frame * FRAME_PAGES)
        return max(0, min(FRAME_PAGES, self.differences - (frame - self.page_frames) * FRAME_PAGES))


def new_secret() -> bytes:
    """A key for a new pack."""
    return secrets.token_bytes(32)


def seal(content: bytes, secret: bytes, frame: int) -> bytes:
    """A frame of a pack. No number may be used twice with one secret."""
    return AESGCM(secret).encrypt(_nonce(frame), content, None)


def unseal(data: bytes, secret: bytes, frame: int) -> bytes:
    """What `seal` was given. Raises `BadFrame`."""
    try:
        return AESGCM(secret).decrypt(_nonce(frame), data, None)
    except (InvalidTag, ValueError) as error:
        raise BadFrame(f"frame {frame} is not as it was written") from error


def compress_pages(pages: bytes, frame: int) -> bytes:
    """One zstd frame. Small saves are common and take more care than the rest of a large one."""
    level = _FIRST_FRAMES_LEVEL if frame < _FIRST_FRAMES else _PAGES_LEVEL
    return zstandard.ZstdCompressor(level=level).compress(pages)


def compress_differences(pages: bytes) -> bytes:
    """One zstd frame of pages that are nearly all zeros."""
    return zstandard.ZstdCompressor(level=_DIFFERENCES_LEVEL).compress(pages)


def decompress_pages(data: bytes, pages: int) -> bytes:
    """So many pages. Raises `BadFrame`."""
    return _decompress(data, pages * PAGE_BYTES, None)


def compress_file(content: bytes, dictionary: bytes | None) -> bytes:
    """One zstd frame, with an earlier state of the file as its dictionary (raw content)."""
    together = len(content) + len(dictionary or b"")
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _FILE_LEVEL,
        source_size=len(content),
        dict_size=len(dictionary or b""),
        window_log=max(_LEAST_WINDOW_LOG, math.ceil(math.log2(together + 1))),
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_raw(dictionary)).compress(content)


def decompress_file(data: bytes, size_bytes: int, dictionary: bytes | None) -> bytes:
    """A file of so many bytes. Raises `BadFrame`."""
    return _decompress(data, size_bytes, dictionary)


def _decompress(data: bytes, size_bytes: int, dictionary: bytes | None) -> bytes:
    try:
        content = zstandard.ZstdDecompressor(dict_data=_raw(dictionary)).decompress(data, max_output_size=size_bytes)
    except zstandard.ZstdError as error:
        raise BadFrame(f"a frame cannot be decompressed: {error}") from error
    if len(content) != size_bytes:
        raise BadFrame("a frame holds another number of bytes than it should")
    return content


def _raw(dictionary: bytes | None) -> zstandard.ZstdCompressionDict | None:
    if not dictionary:
        return None
    return zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _nonce(frame: int) -> bytes:
    return frame.to_bytes(12, "big")
