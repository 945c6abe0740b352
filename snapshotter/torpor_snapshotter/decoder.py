"""Objects to images, with everything checked on the way."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
from collections import deque
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from torpor_snapshotter.frame import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    FORMAT_VERSION,
    FRAME_HEADER,
    LONGEST_MANIFEST_BYTES,
    MAGIC,
    OBJECT_HEADER,
    BadFrame,
    FrameHeader,
    check_frame,
    chunk_digest,
    decode_chunk,
    end_body,
    file_digest,
    object_header,
)
from torpor_snapshotter.manifest import BadManifest, Manifest
from torpor_snapshotter.object_reader import EndOfObject, ObjectReader
from torpor_snapshotter.store import DamagedObject, ObjectStore

_CHUNKS_IN_HAND: Final = 4


async def decode(store: ObjectStore, key: str, sha256: str, into: Path, executor: Executor) -> Manifest:
    """Write the image in the object `key` into the new folder `into`; what the object says of it.

    `sha256` is the object's digest, in hex. Zero pages become holes. After an error `into` is gone. Raises
    `DamagedObject` if any byte is not as it was written, `NotStored`, `StoreError`, and `OSError` for `into`.
    """
    os.mkdir(into)
    try:
        return await _decode(ObjectReader(store, key), sha256, into, executor)
    except (BadFrame, BadManifest, EndOfObject) as error:
        shutil.rmtree(into)
        raise DamagedObject(f"The object {key} is damaged: {error}.") from error
    except BaseException:
        # A thread may still be writing a chunk: it creates nothing, so the folder goes all the same.
        shutil.rmtree(into)
        raise


async def _decode(reader: ObjectReader, sha256: str, into: Path, executor: Executor) -> Manifest:
    content = await _read_manifest(reader)
    manifest = Manifest.from_json(content)
    files = [_FileInTheMaking(into / file.name, file.size_bytes) for file in manifest.files]
    in_hand: deque[asyncio.Future[None]] = deque()
    last = (-1, -1)
    frames = 0
    try:
        while True:
            header = FrameHeader.from_bytes(await reader.take(FRAME_HEADER.size))
            body = await reader.take(header.body_bytes)
            digest = await reader.take(DIGEST_BYTES)
            if header.is_end:
                break
            place = (header.file_number, header.chunk_number)
            if place <= last or header.file_number >= len(files):
                raise BadFrame("a frame is out of place")
            last = place
            frames += 1
            write = functools.partial(files[header.file_number].write, header, body, digest)
            in_hand.append(asyncio.get_running_loop().run_in_executor(executor, write))
            if len(in_hand) == _CHUNKS_IN_HAND:
                await in_hand.popleft()
        check_frame(header, body, digest)
        while in_hand:
            await in_hand.popleft()
    finally:
        for future in in_hand:
            future.cancel()
    await reader.expect_end()
    if header.chunk_number != frames or body != end_body(object_header(content), [file.digest() for file in files]):
        raise BadFrame("its files or its manifest are not those that were written")
    if reader.sha256() != sha256:
        raise BadFrame("its SHA-256 is not that of the object that was written")
    return manifest


async def _read_manifest(reader: ObjectReader) -> bytes:
    magic, version, length = OBJECT_HEADER.unpack(await reader.take(OBJECT_HEADER.size))
    if magic != MAGIC:
        raise BadFrame("it does not begin as a snapshot does")
    if version != FORMAT_VERSION or length > LONGEST_MANIFEST_BYTES:
        raise BadFrame(f"format version {version} is not read here")
    return await reader.take(length)


class _FileInTheMaking:
    """One file of an image, sparse; its chunks may be written in any order and at once."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._digests: list[bytes | None] = [None] * -(-size_bytes // CHUNK_BYTES)
        with path.open("xb") as file:
            file.truncate(size_bytes)

    def write(self, header: FrameHeader, body: bytes, digest: bytes) -> None:
        """Check a frame and write its chunk. Raises `BadFrame`."""
        check_frame(header, body, digest)
        number = header.chunk_number
        if number >= len(self._digests) or header.chunk_bytes != self._chunk_bytes(number):
            raise BadFrame("a frame does not fit its file")
        chunk = decode_chunk(header, body)
        with self._path.open("r+b") as file:
            for start, pages in chunk.runs:
                file.seek(number * CHUNK_BYTES + start)
                file.write(pages)
        self._digests[number] = chunk.digest

    def digest(self) -> bytes:
        """The file's digest, once every frame is written; chunks without one are zero."""
        return file_digest(
            [digest or _zero_digest(self._chunk_bytes(number)) for number, digest in enumerate(self._digests)]
        )

    def _chunk_bytes(self, number: int) -> int:
        return min(CHUNK_BYTES, self._size_bytes - number * CHUNK_BYTES)


@functools.lru_cache(maxsize=16)
def _zero_digest(length: int) -> bytes:
    return chunk_digest(bytes(length))
