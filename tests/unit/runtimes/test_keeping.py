"""A runtime in the store comes back as it was, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes import installed, verify
from torpor_snapshotter.runtimes.description import PART_BYTES, Description
from torpor_snapshotter.runtimes.folder import exclusive, publish
from torpor_snapshotter.runtimes.keeping import bring, keep
from torpor_snapshotter.store import DamagedObject, NotStored


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


async def at_once() -> None:
    """Wait for nobody."""


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """Its root file system has two parts."""
    data_dir = tmp_path / "here"
    with exclusive(data_dir, quiet) as work:
        (work / "runsc").write_bytes(b"binary")
        (work / "rootfs").write_bytes(os.urandom(1 << 16) + bytes(PART_BYTES) + b"end")
        return publish(data_dir, work / "runsc", work / "rootfs", "v1", None)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty one."""
    return FolderStore(tmp_path / "store")


async def test_a_host_without_the_runtime_gets_it_from_the_store(
    runtime: Runtime, store: FolderStore, tmp_path: Path
) -> None:
    description = Description.of(runtime)
    await keep(store, runtime, description, at_once)
    fractions = []

    brought = await bring(
        store,
        description.key,
        description.sha256,
        tmp_path / "there",
        lambda _, fraction=None: fractions.append(fraction),
    )

    verify(brought)
    assert (brought.series, brought.runsc_sha256) == (runtime.series, runtime.runsc_sha256)
    assert installed(tmp_path / "there") == [brought]
    assert brought.runsc.stat().st_mode & 0o777 == 0o755
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)
    assert await bring(store, description.key, description.sha256, tmp_path / "there", quiet) == brought
    assert {key async for key in store.list()} == set(description.keys)


async def test_what_is_in_the_store_already_is_not_put_again(runtime: Runtime, store: FolderStore) -> None:
    description = Description.of(runtime)

    async def dies() -> None:
        if len([key async for key in store.list()]) == 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await keep(store, runtime, description, dies)
    earlier = {key async for key in store.list()}
    await keep(store, runtime, description, at_once)

    assert description.key not in earlier
    assert earlier < {key async for key in store.list()} == set(description.keys)


@pytest.mark.parametrize("harm", ["cut short", "another", "missing"])
async def test_a_part_that_is_not_as_it_was_is_named_and_nothing_is_installed(
    runtime: Runtime, store: FolderStore, tmp_path: Path, harm: str
) -> None:
    description = Description.of(runtime)
    await keep(store, runtime, description, at_once)
    key = description.rootfs.parts[1].key
    path = tmp_path / "store" / key
    if harm == "missing":
        path.unlink()
    else:
        other = (tmp_path / "store" / description.runsc.parts[0].key).read_bytes()
        path.write_bytes(path.read_bytes()[:-3] if harm == "cut short" else other)

    with pytest.raises(NotStored if harm == "missing" else DamagedObject, match=key):
        await bring(store, description.key, description.sha256, tmp_path / "there", quiet)
    assert installed(tmp_path / "there") == []


async def test_a_description_that_is_not_the_one_that_was_written_is_refused(
    runtime: Runtime, store: FolderStore, tmp_path: Path
) -> None:
    description = Description.of(runtime)
    await keep(store, runtime, description, at_once)
    path = tmp_path / "store" / description.key
    path.write_bytes(path.read_bytes().replace(b'"built_for":"v1', b'"built_for":"v2'))

    with pytest.raises(DamagedObject, match=description.key):
        await bring(store, description.key, description.sha256, tmp_path / "there", quiet)
