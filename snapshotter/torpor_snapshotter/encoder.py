"""Images to objects."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from torpor_snapshotter.frame import (
    CHUNK_BYTES,
    LONGEST_MANIFEST_BYTES,
    EncodedChunk,
    encode_chunk,
    end_body,
    end_frame,
    file_digest,
    object_header,
)
from torpor_snapshotter.image import BadImage, read_chunk
from torpor_snapshotter.manifest import Manifest

_CHUNKS_IN_HAND: Final = 4


async def encode(image: Path, manifest: Manifest, executor: Executor) -> AsyncGenerator[bytes, None]:
    """The pieces of the object that holds `image`, in order.

    Reading and compressing happen in the threads of `executor`, a few chunks ahead, so that memory stays bounded
    whatever the image's size. Raises `BadImage` if a file is shorter than the manifest says.
    """
    content = manifest.to_json()
    if len(content) > LONGEST_MANIFEST_BYTES:
        raise BadImage(f"The fields of a snapshot take {len(content)} bytes; {LONGEST_MANIFEST_BYTES} are allowed.")
    header = object_header(content)
    yield header
    frames = 0
    file_digests: list[bytes] = []
    for file_number, file in enumerate(manifest.files):
        chunk_digests: list[bytes] = []
        async for chunk in _encode_file(file_number, image / file.name, file.size_bytes, executor):
            chunk_digests.append(chunk.digest)
            if chunk.frame:
                frames += 1
                yield chunk.frame
        file_digests.append(file_digest(chunk_digests))
    yield end_frame(frames, end_body(header, file_digests))


async def _encode_file(
    file_number: int, path: Path, size_bytes: int, executor: Executor
) -> AsyncGenerator[EncodedChunk, None]:
    loop = asyncio.get_running_loop()

    def encode_at(chunk_number: int) -> EncodedChunk:
        start = chunk_number * CHUNK_BYTES
        chunk = read_chunk(path, start, min(CHUNK_BYTES, size_bytes - start))
        return encode_chunk(file_number, chunk_number, chunk)

    in_hand: deque[asyncio.Future[EncodedChunk]] = deque()
    try:
        for chunk_number in range(-(-size_bytes // CHUNK_BYTES)):
            in_hand.append(loop.run_in_executor(executor, encode_at, chunk_number))
            if len(in_hand) == _CHUNKS_IN_HAND:
                yield await in_hand.popleft()
        while in_hand:
            yield await in_hand.popleft()
    finally:
        for future in in_hand:
            future.cancel()
