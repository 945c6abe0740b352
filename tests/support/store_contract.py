"""What every object store promises: tests for whoever has a fixture `store`, and what they use."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.key import BadKey
from torpor_snapshotter.owner import OWNER_KEY, StoreOwned, claim
from torpor_snapshotter.store import AlreadyStored, NotStored, ObjectStore, StoreError


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body in these pieces."""
    for piece in pieces:
        yield piece


async def broken_body(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body that breaks after these pieces."""
    for piece in pieces:
        yield piece
    raise ConnectionResetError


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """Every key with the prefix, sorted."""
    return sorted([key async for key in store.list(prefix)])


class StoreContract:
    """A subclass gives the fixture `store`: a new, empty one."""

    async def test_an_object_is_read_back_whole_and_in_part(self, store: ObjectStore) -> None:
        assert await store.put_new("m/0-a", body(b"hello ", b"", b"world")) == 11
        assert await store.read("m/0-a") == b"hello world"
        assert await store.read("m/0-a", 6) == b"world"
        assert await store.read("m/0-a", 3, 5) == b"lo wo"
        assert await store.read("m/0-a", 6, 100) == b"world"
        assert await store.read("m/0-a", 11, 5) == b""
        assert await store.read("m/0-a", 3, 0) == b""

    async def test_an_empty_object_is_one(self, store: ObjectStore) -> None:
        assert await store.put_new("empty", body()) == 0
        assert await store.read("empty") == b""
        assert await keys(store) == ["empty"]

    async def test_a_key_is_written_once(self, store: ObjectStore) -> None:
        await store.put_new("key", body(b"first"))
        with pytest.raises(AlreadyStored):
            await store.put_new("key", body(b"second"))
        with pytest.raises(AlreadyStored):
            await store.put_new("key", body(b"first"))
        assert await store.read("key") == b"first"

    async def test_of_many_writers_of_one_key_one_succeeds(self, store: ObjectStore) -> None:
        results = await asyncio.gather(
            *(store.put_new("key", body(str(number).encode())) for number in range(8)), return_exceptions=True
        )
        assert sum(isinstance(result, AlreadyStored) for result in results) == 7, results
        winner = next(number for number, result in enumerate(results) if result == 1)
        assert await store.read("key") == str(winner).encode()

    async def test_an_absent_object_is_told_and_deleting_it_is_no_error(self, store: ObjectStore) -> None:
        with pytest.raises(NotStored):
            await store.read("none")
        with pytest.raises(NotStored):
            await store.read("none", 5, 0)
        await store.put_new("folder/key", body(b""))
        with pytest.raises(NotStored):
            await store.read("folder")
        await store.delete("none")
        await store.delete("folder/key")
        await store.delete("folder/key")
        assert await keys(store) == []

    async def test_a_key_can_be_written_again_after_a_delete(self, store: ObjectStore) -> None:
        await store.put_new("m/key", body(b"old"))
        await store.delete("m/key")
        await store.put_new("m/key", body(b"new"))
        assert await store.read("m/key") == b"new"

    async def test_a_list_has_the_keys_with_the_prefix(self, store: ObjectStore) -> None:
        assert await keys(store) == []
        for key in ("a/1", "a/2", "ab", "b/c/d"):
            await store.put_new(key, body(key.encode()))
        assert await keys(store) == ["a/1", "a/2", "ab", "b/c/d"]
        assert await keys(store, "a/") == ["a/1", "a/2"]

    async def test_a_body_that_breaks_leaves_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(ConnectionResetError):
            await store.put_new("key", broken_body(b"a part"))
        assert await keys(store) == []
        await store.put_new("key", body(b"whole"))

    async def test_a_check_leaves_nothing(self, store: ObjectStore) -> None:
        await store.check()
        assert await keys(store) == []

    async def test_a_key_that_is_no_plain_relative_path_is_refused(self, store: ObjectStore) -> None:
        for key in ("", "/a", "a/", "a//b", "..", "a/../b", "./a", ".hidden", "a\0b", "a b", "x" * 600):
            for refused in (store.put_new(key, body(b"x")), store.read(key), store.delete(key)):
                with pytest.raises(BadKey):
                    await refused

    async def test_a_cancelled_write_leaves_nothing(self, store: ObjectStore) -> None:
        faulty = FaultyStore(store, Fault.SLOW)
        writing = asyncio.create_task(faulty.put_new("key", body(b"one", b"two")))
        await asyncio.wait_for(faulty.waiting.wait(), 30)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await keys(store) == []

    async def test_a_store_belongs_to_the_first_who_claims_it(self, store: ObjectStore) -> None:
        await claim(store, "first", has_objects=False)
        await claim(store, "first", has_objects=True)
        with pytest.raises(StoreOwned, match=f"another server's.*--store-url.*{OWNER_KEY}"):
            await claim(store, "second", has_objects=True)
        await claim(store, "first", has_objects=False)

    async def test_of_many_who_claim_a_store_at_once_one_has_it(self, store: ObjectStore) -> None:
        results = await asyncio.gather(
            *(claim(store, str(number), has_objects=False) for number in range(4)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["NoneType"] + 3 * ["StoreOwned"], results

    async def test_objects_without_an_owner_are_not_a_new_servers(self, store: ObjectStore) -> None:
        await store.put_new("holiday.jpeg", body(b"beach"))
        with pytest.raises(StoreOwned, match=r"holiday\.jpeg.*would delete"):
            await claim(store, "new", has_objects=False)
        assert await keys(store) == ["holiday.jpeg"]
        await claim(store, "old", has_objects=True)

    async def test_under_every_fault_a_key_names_the_whole_object_or_an_error_is_told(self, store: ObjectStore) -> None:
        faulty = FaultyStore(store)
        await faulty.put_new("kept", body(b"kept"))
        for fault in (Fault.FULL, Fault.REFUSING, Fault.CUT):
            faulty.fault = fault
            with pytest.raises(StoreError):
                await faulty.put_new(f"new-{fault}", body(b"one", b"two"))
        faulty.fault = None
        assert await keys(faulty) == ["kept", "new-cut"]
        assert await faulty.read("new-cut") == b"onetwo"
        assert await faulty.read("kept") == b"kept"
