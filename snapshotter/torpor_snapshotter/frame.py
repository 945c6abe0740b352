"""The pieces of an object: a header with the manifest, one frame per chunk of a file, an end.

Integers are little-endian; `docs/snapshot-format.md` draws the layout. A frame holds the pages of its chunk that are
not all zero; a chunk of zeros has no frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import zstandard
from blake3 import blake3

PAGE_BYTES: Final = 4096
CHUNK_BYTES: Final = 4 << 20
FORMAT_VERSION: Final = 0
MAGIC: Final = b"TORPSNAP"
OBJECT_HEADER: Final = struct.Struct("<8sHI")
"""Magic, format version, length of the manifest."""
FRAME_HEADER: Final = struct.Struct("<HIII")
"""File number, chunk number, length of the chunk, length of the body (page map and compressed pages)."""
DIGEST_BYTES: Final = 32
LONGEST_MANIFEST_BYTES: Final = 1 << 20
LONGEST_BODY_BYTES: Final = CHUNK_BYTES + (64 << 10)
END_FILE_NUMBER: Final = 0xFFFF

_COMPRESSION_LEVEL: Final = 1

_PageFlags: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]


class BadFrame(ValueError):
    """A frame's bytes are not those that were written."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Where a frame's chunk belongs, and how long things are, in bytes."""

    file_number: int
    chunk_number: int
    chunk_bytes: int
    body_bytes: int

    @property
    def is_end(self) -> bool:
        """Whether it is the end: its `chunk_number` counts the frames, its body is that of `end_body`."""
        return self.file_number == END_FILE_NUMBER

    def to_bytes(self) -> bytes:
        """As it stands in an object."""
        return FRAME_HEADER.pack(self.file_number, self.chunk_number, self.chunk_bytes, self.body_bytes)

    @classmethod
    def from_bytes(cls, data: bytes) -> FrameHeader:
        """Raises `BadFrame` if it cannot be right."""
        header = cls(*FRAME_HEADER.unpack(data))
        if header.chunk_bytes > CHUNK_BYTES or header.body_bytes > LONGEST_BODY_BYTES:
            raise BadFrame("a frame is longer than frames are")
        return header


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A frame, empty if the whole chunk is zero, and the digest of the chunk itself."""

    frame: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """The runs of pages that are not zero, each with its offset in the chunk, and the digest of the whole chunk."""

    runs: tuple[tuple[int, bytes], ...]
    digest: bytes


def encode_chunk(file_number: int, chunk_number: int, chunk: bytes) -> EncodedChunk:
    """Compress a chunk of at most `CHUNK_BYTES`."""
    digest = chunk_digest(chunk)
    present = _pages_present(chunk)
    if not present.any():
        return EncodedChunk(b"", digest)
    page_map = np.packbits(present).tobytes()
    pages = chunk if present.all() else b"".join(chunk[start:end] for start, end in _runs(present, len(chunk)))
    body = page_map + zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(pages)
    return EncodedChunk(_frame(FrameHeader(file_number, chunk_number, len(chunk), len(body)), body), digest)


def object_header(manifest: bytes) -> bytes:
    """The beginning of an object."""
    return OBJECT_HEADER.pack(MAGIC, FORMAT_VERSION, len(manifest)) + manifest


def end_body(header: bytes, file_digests: list[bytes]) -> bytes:
    """What the end says of everything before it: digests of the header with its manifest, and of the files."""
    return blake3(header).digest() + b"".join(file_digests)


def end_frame(frames: int, body: bytes) -> bytes:
    """What follows the last of `frames` frames; see `end_body`."""
    return _frame(FrameHeader(END_FILE_NUMBER, frames, 0, len(body)), body)


def check_frame(header: FrameHeader, body: bytes, digest: bytes) -> None:
    """Raise `BadFrame` unless the digest is that of header and body."""
    if _frame_digest(header, body) != digest:
        raise BadFrame("a frame does not match its checksum")


def decode_chunk(header: FrameHeader, body: bytes) -> DecodedChunk:
    """The chunk of a checked frame. Raises `BadFrame`."""
    page_count = -(-header.chunk_bytes // PAGE_BYTES)
    map_bytes = -(-page_count // 8)
    if len(body) < map_bytes:
        raise BadFrame("a page map is cut off")
    present = np.unpackbits(np.frombuffer(body, np.uint8, count=map_bytes), count=page_count).astype(np.bool_)
    places = _runs(present, header.chunk_bytes)
    expected_bytes = sum(end - start for start, end in places)
    try:
        pages = zstandard.ZstdDecompressor().decompress(body[map_bytes:], max_output_size=expected_bytes)
    except zstandard.ZstdError as error:
        raise BadFrame(f"a frame cannot be decompressed: {error}") from error
    if len(pages) != expected_bytes:
        raise BadFrame("a frame holds another number of pages than its map")
    chunk = bytearray(header.chunk_bytes)
    taken = 0
    for start, end in places:
        chunk[start:end] = pages[taken : taken + end - start]
        taken += end - start
    return DecodedChunk(tuple((start, bytes(chunk[start:end])) for start, end in places), chunk_digest(chunk))


def chunk_digest(chunk: bytes | bytearray) -> bytes:
    """BLAKE3 of a chunk's bytes, zeros too."""
    return blake3(chunk).digest()


def file_digest(chunk_digests: list[bytes]) -> bytes:
    """BLAKE3 of the digests of a file's chunks, in order: chunks can be digested in any."""
    return blake3(b"".join(chunk_digests)).digest()


def _frame(header: FrameHeader, body: bytes) -> bytes:
    return header.to_bytes() + body + _frame_digest(header, body)


def _frame_digest(header: FrameHeader, body: bytes) -> bytes:
    hasher = blake3(header.to_bytes())
    hasher.update(body)
    return hasher.digest()


def _pages_present(chunk: bytes) -> _PageFlags:
    """For each page of the chunk, the last of which may be short, whether any byte of it is not zero."""
    whole_bytes = len(chunk) // PAGE_BYTES * PAGE_BYTES
    words = np.frombuffer(chunk, np.uint64, count=whole_bytes // 8).reshape(-1, PAGE_BYTES // 8)
    present = np.empty(-(-len(chunk) // PAGE_BYTES), np.bool_)
    present[: len(words)] = words.any(axis=1)
    if whole_bytes < len(chunk):
        present[-1] = any(chunk[whole_bytes:])
    return present


def _runs(present: _PageFlags, chunk_bytes: int) -> list[tuple[int, int]]:
    """Start and end, in bytes, of each run of pages that are present."""
    edges = np.flatnonzero(np.diff(present.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    return [(int(start) * PAGE_BYTES, min(int(end) * PAGE_BYTES, chunk_bytes)) for start, end in edges]
