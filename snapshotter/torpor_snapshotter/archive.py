"""Storing images in an object store, and bringing them back."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torpor_snapshotter.decoder import decode
from torpor_snapshotter.encoder import encode
from torpor_snapshotter.image import files_of_image
from torpor_snapshotter.manifest import Manifest
from torpor_snapshotter.object_reader import ObjectReader
from torpor_snapshotter.store import DamagedObject, ObjectStore, StoreError

_THREADS: Final = 2
_STORING_NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store: the key and SHA-256 of its object, and both sizes."""

    key: str
    sha256: str
    stored_bytes: int
    image_bytes: int


class Archive:
    """Images in an `ObjectStore`, one object each.

    One image is stored at a time, in threads of low priority; two can be fetched meanwhile.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._storing = asyncio.Semaphore(1)
        self._fetching = asyncio.Semaphore(2)
        self._storing_threads = ThreadPoolExecutor(_THREADS, "store", initializer=_lower_priority)
        self._fetching_threads = ThreadPoolExecutor(_THREADS, "fetch")

    async def store(self, image: Path, key: str, fields: dict[str, Any]) -> StoredImage:
        """Put the image in the folder `image` under `key`, then read it back and compare.

        Raises `BadImage`, `AlreadyStored`, `StoreError`; an object that the store does not give back as it was written
        is deleted, and is `DamagedObject`.
        """
        async with self._storing:
            manifest = Manifest(await asyncio.to_thread(files_of_image, image), fields)
            hasher = hashlib.sha256()

            async def digested(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
                async for piece in pieces:
                    hasher.update(piece)
                    yield piece

            async with (
                aclosing(encode(image, manifest, self._storing_threads)) as pieces,
                aclosing(digested(pieces)) as body,
            ):
                size_bytes = await self._store.put_new(key, body)
            reader = ObjectReader(self._store, key)
            await reader.read_to_end()
            if (reader.sha256(), reader.size_bytes) != (hasher.hexdigest(), size_bytes):
                with suppress(StoreError):  # what stays is garbage that no row names
                    await self._store.delete(key)
                raise DamagedObject(f"The store does not give back {key} as it was written.")
            return StoredImage(key, hasher.hexdigest(), size_bytes, manifest.image_bytes)

    async def fetch(self, key: str, sha256: str, into: Path) -> Manifest:
        """Bring an image back into the new folder `into`; see `decode` for what is checked and raised."""
        async with self._fetching:
            return await decode(self._store, key, sha256, into, self._fetching_threads)

    async def close(self) -> None:
        """Let the threads end."""
        await asyncio.to_thread(self._storing_threads.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._fetching_threads.shutdown, cancel_futures=True)


def _lower_priority() -> None:
    # Linux keeps niceness per thread, and 0 is the calling one.
    os.setpriority(os.PRIO_PROCESS, 0, _STORING_NICENESS)
