"""What changes of files write, on its way to the disk."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from torpor_worker.bodies import Bodies

UPLOADS = 100
PIECE_BYTES = 320 << 10


async def test_many_uploads_at_once_hold_what_they_were_given_and_no_copies(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield bytes([number]) * PIECE_BYTES

    async def upload() -> None:
        async with bodies.stored("somebody", pieces()) as body:
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
    async with bodies.stored("somebody", pieces):
        pass


async def test_one_that_is_given_up_is_written_by_nobody_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write, written = threading.Event(), threading.Event(), threading.Event()
    failures: list[OSError] = []

    def write_slowly(fd: int, pieces: Sequence[bytes]) -> int:
        writing.set()
        may_write.wait()
        try:
            return sum(os.write(fd, piece) for piece in pieces)
        except OSError as error:
            failures.append(error)
            raise
        finally:
            written.set()

    monkeypatch.setattr("torpor_worker.bodies._write_all", write_slowly)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(PIECE_BYTES)

    task = asyncio.create_task(_stored(Bodies(tmp_path), pieces()))
    await asyncio.to_thread(writing.wait)
    task.cancel()
    await asyncio.wait([task], timeout=0.05)
    may_write.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(written.wait)
    assert failures == []
    assert os.listdir(tmp_path) == []
