"""Storing images in an object store, and bringing them back."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from torpor_snapshotter.at_once import all_of
from torpor_snapshotter.decoder import decode
from torpor_snapshotter.encoder import Encoder, Parent
from torpor_snapshotter.envelope import BadEnvelope, Header, LaterFormat, MachineKeys, close_envelope, open_envelope
from torpor_snapshotter.image import files_of_image
from torpor_snapshotter.key import pack_key
from torpor_snapshotter.keys import KeyMissing, KeyStore
from torpor_snapshotter.local_pages import LocalImage
from torpor_snapshotter.manifest import BadManifest, Manifest
from torpor_snapshotter.pack_reader import PackReader
from torpor_snapshotter.read_cache import PIECE_BYTES, ReadCache
from torpor_snapshotter.store import DamagedObject, NotStored, ObjectStore, StoreError

Answer = TypeVar("Answer")

_THREADS: Final = 2
_STORING_NICENESS: Final = 10
_PIECE_BYTES: Final = 4 << 20
_FETCHES: Final = 4
"""Images that are fetched at once; while one waits for the store, another has the threads."""
_DERIVATIONS: Final = 8
"""Manifests that are put at once for one state of a machine."""
_LIKES: Final = 2
"""Manifests that are kept because many images are like theirs."""
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ParentKey:
    """The snapshot that a new one builds on: key and SHA-256 of its manifest, and the folder of its image, if known."""

    key: str
    sha256: str
    image: Path | None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store."""

    key: str
    """Of its manifest."""
    sha256: str
    """Of the manifest's object."""
    packs: tuple[str, ...]
    """Keys of every pack that it needs."""
    stored_bytes: int
    """What was added to the store for it."""
    image_bytes: int


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest as it lies in the store."""

    manifest: Manifest
    machine: str
    """Whose it says that it is, with the seal of that machine's key."""
    generation: int
    sha256: str
    """Of the object."""
    size_bytes: int
    """Of the object."""


class Archive:
    """Images in an `ObjectStore`: a manifest each, and packs that they share.

    One image is stored at a time, in threads of low priority; some are fetched meanwhile.
    """

    def __init__(self, store: ObjectStore, keys: KeyStore, cache: ReadCache | None = None) -> None:
        """With a cache of what is read of that store, or without one."""
        self._store = store
        self._keys = keys
        self._cache = cache
        self._read = store.read if cache is None else cache.read
        self._reader = PackReader(self._read)
        self._likes: dict[str, Manifest] = {}
        """Manifests of templates, by key."""
        self._storing = asyncio.Semaphore(1)
        self._fetching = asyncio.Semaphore(_FETCHES)
        self._storing_threads = ThreadPoolExecutor(_THREADS, "store", initializer=_lower_priority)
        self._fetching_threads = ThreadPoolExecutor(_THREADS, "fetch")

    async def store(
        self, image: Path, key: str, fields: dict[str, Any], parent: ParentKey | None = None
    ) -> StoredImage:
        """Put what is new in the image in the folder `image` into a pack, then its manifest under `key`.

        Both are read back and compared. `fields` must name the `machine` and the `generation`. A parent that cannot be
        read is no reason to fail: the image is stored whole then. Raises `BadImage`, `AlreadyStored`, `StoreError`; an
        object that the store does not give back as it was written is deleted, and is `DamagedObject`.
        """
        async with self._storing:
            header = Header(fields["machine"], fields["generation"])
            keys = MachineKeys.of(await asyncio.to_thread(self._keys.make, header.machine))
            files = await asyncio.to_thread(files_of_image, image)
            known = None if parent is None else await self._read_parent(parent)
            own = pack_key(key)
            encoder = Encoder(image, files, known, self._reader, self._storing_threads, own)
            async with aclosing(encoder.pieces()) as pieces:
                _, pack_bytes = await self._put(own, pieces)
            try:
                manifest = await self._run(encoder.manifest, fields)
                content = await self._run(manifest.to_bytes, keys.wrapping)
                async with aclosing(_once(close_envelope(header, content, keys))) as body:
                    sha256, manifest_bytes = await self._put(key, body)
            except BaseException:
                await self._discard(own)
                raise
            packs = tuple(pack.key for pack in manifest.packs)
            return StoredImage(key, sha256, packs, pack_bytes + manifest_bytes, manifest.image_bytes)

    async def derive(
        self, source: str, sha256: str, keys: Mapping[str, str], fields: dict[str, Any]
    ) -> list[StoredImage]:
        """Put manifests of other machines that need the same packs as the one under `source`, which is read once.

        `keys` has a key for each machine's, and `fields` are those of all of them, with the `generation`. Each is
        readable with its machine's key, whatever becomes of the source's. Raises as `read_manifest` and `store` do;
        what was put before stays.
        """
        manifest = await self.read_manifest(source, sha256)
        each = [partial(self._derive, manifest, key, {**fields, "machine": machine}) for machine, key in keys.items()]
        return await all_of(each, _DERIVATIONS)

    async def _derive(self, manifest: Manifest, key: str, fields: dict[str, Any]) -> StoredImage:
        header = Header(fields["machine"], fields["generation"])
        keys = MachineKeys.of(await asyncio.to_thread(self._keys.make, header.machine))
        derived = replace(manifest, fields={**manifest.fields, **fields})
        content = await asyncio.to_thread(derived.to_bytes, keys.wrapping)
        async with aclosing(_once(close_envelope(header, content, keys))) as body:
            manifest_sha256, manifest_bytes = await self._put(key, body)
        packs = tuple(pack.key for pack in derived.packs)
        return StoredImage(key, manifest_sha256, packs, manifest_bytes, derived.image_bytes)

    async def fetch(self, key: str, sha256: str, into: Path, like: ParentKey | None = None) -> float:
        """Bring an image back into the new folder `into`; see `decode` for what is checked, raised and returned.

        Pages that it shares with `like`, whose local image is trusted, are copied from there.
        """
        async with self._fetching:
            manifest, local = await asyncio.gather(self.read_manifest(key, sha256), self._local_image(like))
            try:
                return await decode(manifest, self._reader, into, self._fetching_threads, local)
            except DamagedObject:
                await self._forget(*(pack.key for pack in manifest.packs))
                raise

    async def read_manifest(self, key: str, sha256: str) -> Manifest:
        """A manifest. Raises `DamagedObject`, `NotStored`, `KeyMissing`, `StoreError`."""
        data = await self._read(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            await self._forget(key)
            raise _damaged(key, "its SHA-256 is not that of the object that was written")
        return (await self._open(key, data)).manifest

    async def find_manifest(self, key: str) -> FoundManifest:
        """A manifest whose digest is not known any more: its seal alone says that it is whole.

        Raises as `read_manifest` does; a manifest that was altered cannot be told from one that has another key.
        """
        return await self._open(key, await self._store.read(key))

    async def _open(self, key: str, data: bytes) -> FoundManifest:
        try:
            header = Header.from_bytes(data)
        except BadEnvelope as error:
            raise _damaged(key, error) from error
        except LaterFormat as error:
            # Not damage, for which it would be given up.
            raise StoreError(
                f"The object {key} cannot be read: {error}. A later version of Torpor reads it."
            ) from error
        keys = MachineKeys.of(await asyncio.to_thread(self._keys.get, header.machine))
        try:
            content = open_envelope(data, keys)
        except BadEnvelope as error:
            raise KeyMissing(f"The key of machine {header.machine} does not open {key}: it is another one.") from error
        try:
            manifest = await asyncio.to_thread(Manifest.from_bytes, content, keys.wrapping)
        except BadManifest as error:
            raise _damaged(key, error) from error
        return FoundManifest(manifest, header.machine, header.generation, hashlib.sha256(data).hexdigest(), len(data))

    async def destroy_key(self, machine: str) -> None:
        """Make everything that was stored of a machine, and of no other, unreadable for ever."""
        await asyncio.to_thread(self._keys.destroy, machine)

    async def delete(self, key: str) -> None:
        """Delete an object; no error if it is not there. Raises `StoreError`."""
        await self._store.delete(key)
        await self._forget(key)

    async def close(self) -> None:
        """Let the threads end."""
        await asyncio.to_thread(self._storing_threads.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._fetching_threads.shutdown, cancel_futures=True)

    async def _local_image(self, like: ParentKey | None) -> LocalImage | None:
        if like is None or like.image is None:
            return None
        if like.key not in self._likes:
            try:
                manifest = await self.read_manifest(like.key, like.sha256)
            except StoreError as error:
                _log.warning("A snapshot is fetched whole: what it is like cannot be read: %s", error)
                return None
            self._likes[like.key] = manifest
            while len(self._likes) > _LIKES:
                del self._likes[next(iter(self._likes))]
        return LocalImage(self._likes[like.key], like.image)

    async def _read_parent(self, parent: ParentKey) -> Parent | None:
        try:
            return Parent(await self.read_manifest(parent.key, parent.sha256), parent.image)
        except (DamagedObject, NotStored, KeyMissing) as error:
            _log.warning("A snapshot is stored whole: its parent cannot be read: %s", error)
            return None

    async def _put(self, key: str, body: AsyncIterator[bytes]) -> tuple[str, int]:
        """Put an object and read it back; its SHA-256 and its size."""
        hasher = hashlib.sha256()

        async def digested() -> AsyncGenerator[bytes, None]:
            async for piece in body:
                await self._run(hasher.update, piece)
                yield piece

        async with aclosing(digested()) as pieces:
            size_bytes = await self._store.put_new(key, pieces)
        try:
            found = await self._digest(key)
        except DamagedObject:
            found = None
        if found != (hasher.hexdigest(), size_bytes):
            await self._discard(key)
            raise DamagedObject(f"The store does not give back {key} as it was written.")
        return hasher.hexdigest(), size_bytes

    async def _digest(self, key: str) -> tuple[str, int]:
        hasher = hashlib.sha256()
        size_bytes = 0
        while piece := await self._store.read(key, size_bytes, _PIECE_BYTES):
            await self._run(hasher.update, piece)
            if self._cache is not None:
                self._cache.keep(key, size_bytes // PIECE_BYTES, piece)
            size_bytes += len(piece)
        return hasher.hexdigest(), size_bytes

    async def _run(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do a part of a store in a thread of low priority."""
        return await asyncio.get_running_loop().run_in_executor(self._storing_threads, work, *arguments)

    async def _discard(self, key: str) -> None:
        with suppress(StoreError):  # what stays is garbage, and a row names it
            await self.delete(key)

    async def _forget(self, *keys: str) -> None:
        if self._cache is not None:
            for key in keys:
                await self._cache.drop(key)


def _damaged(key: str, reason: object) -> DamagedObject:
    return DamagedObject(f"The object {key} is damaged: {reason}.")


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


def _lower_priority() -> None:
    # Linux keeps niceness per thread, and 0 is the calling one.
    os.setpriority(os.PRIO_PROCESS, 0, _STORING_NICENESS)
