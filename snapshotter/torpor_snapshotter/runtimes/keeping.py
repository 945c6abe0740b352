"""Runtimes in the store: put there part by part, and brought back to a host that lacks one."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import zstandard

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.description import LONGEST_BYTES, PART_BYTES, Description, Part
from torpor_snapshotter.runtimes.errors import RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.folder import exclusive, installed, publish
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.store import AlreadyStored, DamagedObject, NotStored, ObjectStore

_LEVEL = 3
_SPARE_BYTES = 256 << 20
_COMPRESSION_SPARE_BYTES = 1 << 20
"""By how much a part may be larger than its content."""


async def keep(
    store: ObjectStore, runtime: Runtime, description: Description, before_each: Callable[[], Awaitable[None]]
) -> None:
    """Put what the store lacks of a runtime, its description last; all of it is read back.

    `before_each` is awaited before each part. Cancelled and called again it goes on where it was. Raises `StoreError`,
    and `OSError` or `WrongDigest` if the files are not those that were described.
    """
    for name, file in description.files:
        for number, part in enumerate(file.parts):
            await before_each()
            await _keep_part(store, runtime.rootfs.parent / name, number * PART_BYTES, part)
    await before_each()
    await _put(store, description.key, description.to_bytes())
    await read_description(store, description.key, description.sha256)


async def read_description(store: ObjectStore, key: str, sha256: str) -> Description:
    """The description of a runtime. Raises `NotStored`, `DamagedObject`, `StoreError`."""
    data = await store.read(key, 0, LONGEST_BYTES)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedObject(f"The object {key} is damaged: its SHA-256 is not that of the object that was written.")
    try:
        return Description.from_bytes(data)
    except ValueError as error:
        raise DamagedObject(f"The object {key} describes no runtime: {error}.") from error


async def bring(store: ObjectStore, key: str, sha256: str, data_dir: Path, report: Report) -> Runtime:
    """Install the runtime that the object `key` describes, every digest checked, unless it is installed.

    Interrupted at any point, it leaves nothing that is used. Raises `StoreError`, and `RuntimeProblem` if it does not
    fit.
    """
    description = await read_description(store, key, sha256)
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def read(part: Part) -> bytes:
        if stop.is_set():
            raise RuntimeProblem("It was stopped.")
        return asyncio.run_coroutine_threadsafe(read_part(store, part), loop).result()

    writing = asyncio.ensure_future(asyncio.to_thread(_install, description, data_dir, read, report))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(writing, return_exceptions=True)
        raise


def _install(description: Description, data_dir: Path, read: Callable[[Part], bytes], report: Report) -> Runtime:
    task = f"Fetching runtime {description.series} from the store"
    report(task, 0)
    with exclusive(data_dir, report) as work:
        for runtime in installed(data_dir):
            if runtime.series == description.series and runtime.runsc_sha256 == description.runsc.sha256:
                report(task, 1)
                return runtime
        total_bytes = sum(file.size_bytes for _, file in description.files)
        free_bytes = shutil.disk_usage(work).free
        if free_bytes < total_bytes + _SPARE_BYTES:
            raise RuntimeProblem(
                f"{data_dir} has {free_bytes >> 20} MiB free; runtime {description.series} needs "
                f"{(total_bytes + _SPARE_BYTES) >> 20} MiB."
            )
        done_bytes = 0
        for name, file in description.files:
            digest = hashlib.sha256()
            with (work / name).open("xb") as out:
                for part in file.parts:
                    content = read(part)
                    digest.update(content)
                    out.write(content)
                    done_bytes += len(content)
                    report(task, min(done_bytes / total_bytes, 0.99))
            if digest.hexdigest() != file.sha256:
                raise WrongDigest(
                    f"{name} of runtime {description.series} has another SHA-256 than described: refused."
                )
        runtime = publish(
            data_dir,
            work / "runsc",
            work / "rootfs.erofs",
            description.runsc_version,
            description.built_for,
            replace=True,  # what the ledger names was admitted
        )
    if runtime.series != description.series:
        raise WrongDigest(f"What is described as runtime {description.series} is {runtime.series}.")
    report(task, 1)
    return runtime


async def _keep_part(store: ObjectStore, path: Path, start: int, part: Part) -> None:
    try:
        await read_part(store, part)
    except NotStored:
        await _put(store, part.key, await asyncio.to_thread(_compressed, path, start, part))
        await read_part(store, part)


async def _put(store: ObjectStore, key: str, content: bytes) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield content

    async with aclosing(pieces()) as body:
        try:
            await store.put_new(key, body)
        except AlreadyStored:
            return


async def read_part(store: ObjectStore, part: Part) -> bytes:
    """The content of a part. Raises `NotStored`, `DamagedObject`, `StoreError`."""
    data = await store.read(part.key, 0, PART_BYTES + _COMPRESSION_SPARE_BYTES)
    return await asyncio.to_thread(_decompressed, data, part)


def _compressed(path: Path, start: int, part: Part) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(part.size_bytes)
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise WrongDigest(f"{path} has changed while it was put into the store.")
    return zstandard.ZstdCompressor(level=_LEVEL).compress(content)


def _decompressed(data: bytes, part: Part) -> bytes:
    try:
        content = zstandard.ZstdDecompressor().decompress(data, max_output_size=PART_BYTES)
    except zstandard.ZstdError as error:
        raise DamagedObject(f"The object {part.key} is damaged: {error}.") from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise DamagedObject(f"The object {part.key} is damaged: its content has another SHA-256 than its name says.")
    return content
