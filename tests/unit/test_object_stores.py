"""What every object store promises, kept by folders; and what a folder adds to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.store_contract import StoreContract, body, keys

from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.store import ObjectStore, StoreError
from torpor_snapshotter.store_url import BadStoreUrl, S3Location, locate

STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "folder": FolderStore,
    "faulty without a fault": lambda folder: FaultyStore(FolderStore(folder)),
}


class TestFolderStore(StoreContract):
    """The contract."""

    @pytest.fixture(params=STORES)
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
        return STORES[request.param](tmp_path / "store")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_cancelled_write_leaves_no_file(tmp_path: Path) -> None:
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


def test_a_url_names_a_folder_or_a_bucket() -> None:
    assert locate("file:///srv/a%20b") == Path("/srv/a b")
    assert locate("s3://bucket") == S3Location("bucket", "")
    assert locate("s3://my.bucket-1/a/b/") == S3Location("my.bucket-1", "a/b/")
    assert str(locate("s3://bucket/a")) == "s3://bucket/a"


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///prefix", "s3://b", "s3://bucket/../x", "s3://bucket/a b", "s3://b/c?d"]
)
def test_a_url_that_names_no_bucket_is_a_sentence(url: str) -> None:
    with pytest.raises(BadStoreUrl, match="write it as s3://bucket/prefix"):
        locate(url)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadStoreUrl, match="AWS_ACCESS_KEY_ID") as refusal:
        locate("s3://key:hush@bucket/prefix")
    assert "hush" not in str(refusal.value)
