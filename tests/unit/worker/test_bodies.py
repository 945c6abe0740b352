"""What changes of files write, on its way to the disk."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

from torpor_worker.bodies import Bodies

UPLOADS = 100
PIECE_BYTES = 320 << 10


async def test_many_uploads_at_once_hold_what_they_were_given_and_no_copies(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield bytes([number]) * PIECE_BYTES

    async def upload() -> None:
        async with bodies.stored(pieces()) as body:
            assert body.size_bytes == 3 * PIECE_BYTES
            read = b"".join([piece async for piece in bodies.pieces(body.key)])
            assert read == b"".join(bytes([number]) * PIECE_BYTES for number in range(3))

    await upload()
    tracemalloc.start()
    try:
        async with asyncio.TaskGroup() as uploads:
            for _ in range(UPLOADS):
                uploads.create_task(_stored(bodies, pieces()))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1.5 * UPLOADS * PIECE_BYTES


async def _stored(bodies: Bodies, pieces: AsyncIterator[bytes]) -> None:
    async with bodies.stored(pieces):
        pass
