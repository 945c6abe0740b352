"""What every object store promises, and what a folder adds to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.key import BadKey
from torpor_snapshotter.store import AlreadyStored, NotStored, ObjectStore, StoreError

STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "folder": FolderStore,
    "faulty without a fault": lambda folder: FaultyStore(FolderStore(folder)),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return STORES[request.param](tmp_path / "store")


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def broken_body() -> AsyncIterator[bytes]:
    yield b"a part"
    raise ConnectionResetError


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return sorted([key async for key in store.list(prefix)])


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_an_object_is_read_back_whole_and_in_part(store: ObjectStore) -> None:
    assert await store.put_new("m/0-a", body(b"hello ", b"", b"world")) == 11
    assert await store.read("m/0-a") == b"hello world"
    assert await store.read("m/0-a", 6) == b"world"
    assert await store.read("m/0-a", 3, 5) == b"lo wo"
    assert await store.read("m/0-a", 11, 5) == b""


async def test_a_key_is_written_once(store: ObjectStore) -> None:
    await store.put_new("key", body(b"first"))
    with pytest.raises(AlreadyStored):
        await store.put_new("key", body(b"second"))
    assert await store.read("key") == b"first"


async def test_of_many_writers_of_one_key_one_succeeds(store: ObjectStore) -> None:
    results = await asyncio.gather(
        *(store.put_new("key", body(str(number).encode())) for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, AlreadyStored) for result in results) == 7
    winner = next(number for number, result in enumerate(results) if result == 1)
    assert await store.read("key") == str(winner).encode()


async def test_an_absent_object_is_told_and_deleting_it_is_no_error(store: ObjectStore) -> None:
    with pytest.raises(NotStored):
        await store.read("none")
    await store.put_new("folder/key", body(b""))
    with pytest.raises(NotStored):
        await store.read("folder")
    await store.delete("none")
    await store.delete("folder/key")
    await store.delete("folder/key")
    assert await keys(store) == []


async def test_a_key_can_be_written_again_after_a_delete(store: ObjectStore) -> None:
    await store.put_new("m/key", body(b"old"))
    await store.delete("m/key")
    await store.put_new("m/key", body(b"new"))
    assert await store.read("m/key") == b"new"


async def test_a_list_has_the_keys_with_the_prefix(store: ObjectStore) -> None:
    assert await keys(store) == []
    for key in ("a/1", "a/2", "ab", "b/c/d"):
        await store.put_new(key, body(key.encode()))
    assert await keys(store) == ["a/1", "a/2", "ab", "b/c/d"]
    assert await keys(store, "a/") == ["a/1", "a/2"]


async def test_a_body_that_breaks_leaves_nothing(store: ObjectStore) -> None:
    with pytest.raises(ConnectionResetError):
        await store.put_new("key", broken_body())
    assert await keys(store) == []
    await store.put_new("key", body(b"whole"))


async def test_a_check_leaves_nothing(store: ObjectStore) -> None:
    await store.check()
    assert await keys(store) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "a/../b", "./a", ".hidden", "a\0b", "a b", "x" * 600])
async def test_a_key_that_is_no_plain_relative_path_is_refused(store: ObjectStore, key: str) -> None:
    for refused in (store.put_new(key, body(b"x")), store.read(key), store.delete(key)):
        with pytest.raises(BadKey):
            await refused


async def test_a_cancelled_write_leaves_nothing(tmp_path: Path) -> None:
    faulty = FaultyStore(FolderStore(tmp_path), Fault.SLOW)
    writing = asyncio.create_task(faulty.put_new("key", body(b"one", b"two")))
    await asyncio.wait_for(faulty.waiting.wait(), 30)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert files_in(tmp_path) == []


async def test_what_a_dead_writer_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    slow = FaultyStore(FolderStore(tmp_path), Fault.SLOW)
    writing = asyncio.create_task(slow.put_new("key", body(b"one", b"two")))
    await asyncio.wait_for(slow.waiting.wait(), 30)
    leftover = tmp_path / ".incoming" / "0123"
    leftover.write_bytes(b"half of something")
    await FolderStore(tmp_path).check()
    assert not leftover.exists()
    slow.go_on.set()
    await writing
    assert await slow.read("key") == b"onetwo"


async def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FolderStore(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="cannot be used as a store"):
        await store.check()
    assert await keys(store) == []
