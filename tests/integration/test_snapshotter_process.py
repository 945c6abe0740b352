"""A real snapshotter process: requests, deaths in the middle of them, signals, and its end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from torpor_snapshotter.store_url import BadStoreUrl
from torpor_worker.snapshots import Parent, SnapshotterError
from torpor_worker.snapshotter_process import SnapshotterProcess

pytestmark = pytest.mark.integration

FIELDS = {"machine": "m", "generation": 0}


@pytest.fixture
async def snapshotter(tmp_path: Path) -> AsyncIterator[SnapshotterProcess]:
    async with SnapshotterProcess((tmp_path / "store").as_uri(), (tmp_path / "keys").as_uri()) as process:
        yield process


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "image", os.urandom(1 << 20) + bytes(8 << 20) + b"end")


@pytest.fixture
def endless_image(tmp_path: Path) -> Path:
    """So large that it takes a minute to store; it takes no room on the disk."""
    image = write_image(tmp_path / "endless", b"")
    os.truncate(image / "pages.img", 64 << 30)
    return image


def write_image(folder: Path, pages: bytes) -> Path:
    folder.mkdir()
    (folder / "pages.img").write_bytes(pages)
    (folder / "checkpoint.img").write_bytes(b"state")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.005)


def is_gone(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def something_is_being_written(tmp_path: Path) -> bool:
    incoming = tmp_path / "store" / ".incoming"
    return incoming.is_dir() and any(incoming.iterdir())


async def test_an_image_is_stored_listed_fetched_and_deleted(
    snapshotter: SnapshotterProcess, image: Path, tmp_path: Path
) -> None:
    await snapshotter.check()
    stored = await snapshotter.store(image, "m/0-a", {**FIELDS, "tags": {"ü": "\n"}})
    assert stored.manifest_key == "m/0-a"
    assert stored.image_bytes == (9 << 20) + 3 + 5
    assert (1 << 20) < stored.stored_bytes < (2 << 20)
    assert stored.packs == ("m/0-a.pack",)
    assert sorted(await snapshotter.list()) == ["m/0-a", "m/0-a.pack"]
    await snapshotter.fetch("m/0-a", stored.manifest_sha256, tmp_path / "out")
    assert content(tmp_path / "out") == content(image)
    for _ in range(2):
        await snapshotter.delete("m/0-a")
        await snapshotter.delete("m/0-a.pack")
    assert await snapshotter.list() == []


async def test_a_second_save_stores_what_is_new_and_is_whole_without_the_first(
    snapshotter: SnapshotterProcess, image: Path, tmp_path: Path
) -> None:
    first = await snapshotter.store(image, "m/0-a", FIELDS)
    changed = write_image(tmp_path / "changed", (image / "pages.img").read_bytes()[4096:] + os.urandom(4096))
    parent = Parent(first.manifest_key, first.manifest_sha256, image)
    second = await snapshotter.store(changed, "m/1-b", {**FIELDS, "generation": 1}, parent)
    assert second.stored_bytes < 20_000
    assert second.packs == ("m/0-a.pack", "m/1-b.pack")
    await snapshotter.delete("m/0-a")
    await snapshotter.fetch("m/1-b", second.manifest_sha256, tmp_path / "out")
    assert content(tmp_path / "out") == content(changed)


async def test_nothing_can_be_fetched_once_the_key_is_destroyed(
    snapshotter: SnapshotterProcess, image: Path, tmp_path: Path
) -> None:
    stored = await snapshotter.store(image, "m/0-a", FIELDS)
    for _ in range(2):
        await snapshotter.destroy_key("m")
    with pytest.raises(SnapshotterError, match="key of machine m"):
        await snapshotter.fetch("m/0-a", stored.manifest_sha256, tmp_path / "out")


async def test_requests_in_one_breath_are_all_answered(
    snapshotter: SnapshotterProcess, image: Path, tmp_path: Path
) -> None:
    stored = await asyncio.gather(*(snapshotter.store(image, f"m/{number}", FIELDS) for number in range(4)))
    await asyncio.gather(
        *(
            snapshotter.fetch(each.manifest_key, each.manifest_sha256, tmp_path / f"{n}")
            for n, each in enumerate(stored)
        )
    )
    assert all(content(tmp_path / f"{number}") == content(image) for number in range(4))


async def test_more_keys_than_one_line_holds_are_listed(snapshotter: SnapshotterProcess, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "m"
    folder.mkdir(parents=True)
    for number in range(2500):
        (folder / f"{number}").touch()
    assert len(await snapshotter.list()) == 2500


async def test_what_cannot_be_helped_by_trying_again_says_so(
    snapshotter: SnapshotterProcess, image: Path, tmp_path: Path
) -> None:
    await snapshotter.claim("owner", has_objects=False)
    stored = await snapshotter.store(image, "key", FIELDS)
    for hopeless in (
        snapshotter.store(image, "key", FIELDS),
        snapshotter.store(image, "../key", FIELDS),
        snapshotter.store(tmp_path / "none", "other", FIELDS),
        snapshotter.fetch("none", stored.manifest_sha256, tmp_path / "out"),
        snapshotter.fetch("key", "0" * 64, tmp_path / "out"),
    ):
        with pytest.raises(SnapshotterError) as raised:
            await hopeless
        assert not raised.value.retryable
    assert not (tmp_path / "out").exists()


async def test_a_store_that_was_taken_away_is_worth_trying_again(
    snapshotter: SnapshotterProcess, image: Path, tmp_path: Path
) -> None:
    await snapshotter.claim("owner", has_objects=False)
    stored = await snapshotter.store(image, "key", FIELDS)
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(SnapshotterError, match="not mounted") as raised:
        await snapshotter.fetch("key", stored.manifest_sha256, tmp_path / "out")
    assert raised.value.retryable
    (tmp_path / "away").rename(tmp_path / "store")
    await snapshotter.fetch("key", stored.manifest_sha256, tmp_path / "out")


async def test_a_store_that_refuses_is_worth_trying_again(image: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    async with SnapshotterProcess((tmp_path / "store").as_uri(), (tmp_path / "keys").as_uri()) as snapshotter:
        with pytest.raises(SnapshotterError, match="cannot be used as a store") as raised:
            await snapshotter.store(image, "key", FIELDS)
        assert raised.value.retryable
        (tmp_path / "store").unlink()
        await snapshotter.store(image, "key", FIELDS)


async def test_a_death_in_the_middle_of_a_store_leaves_nothing_and_the_next_request_is_answered(
    snapshotter: SnapshotterProcess, endless_image: Path, image: Path, tmp_path: Path
) -> None:
    storing = asyncio.create_task(snapshotter.store(endless_image, "m/key", FIELDS))
    await until(lambda: something_is_being_written(tmp_path))
    first = snapshotter.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(SnapshotterError) as raised:
        await storing
    assert raised.value.retryable
    assert await snapshotter.list() == []
    assert snapshotter.process_id != first
    await snapshotter.store(image, "m/key", FIELDS)
    assert sorted(await snapshotter.list()) == ["m/key", "m/key.pack"]
    assert not something_is_being_written(tmp_path)


async def test_a_process_that_cannot_be_started_is_tried_again(
    snapshotter: SnapshotterProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_id = snapshotter.process_id
    assert process_id is not None
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        os.kill(process_id, signal.SIGKILL)
        listing = asyncio.create_task(snapshotter.list())
        await asyncio.wait([listing], timeout=1)
    assert await snapshotter.list() == []
    await asyncio.gather(listing, return_exceptions=True)


async def test_a_cancelled_request_goes_no_further(
    snapshotter: SnapshotterProcess, endless_image: Path, tmp_path: Path
) -> None:
    before = snapshotter.process_id
    storing = asyncio.create_task(snapshotter.store(endless_image, "key", FIELDS))
    await until(lambda: something_is_being_written(tmp_path))
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert not something_is_being_written(tmp_path)
    assert await snapshotter.list() == []
    assert snapshotter.process_id == before


async def test_only_its_parent_ends_it(snapshotter: SnapshotterProcess) -> None:
    process_id = snapshotter.process_id
    assert process_id is not None
    os.kill(process_id, signal.SIGINT)
    os.kill(process_id, signal.SIGTERM)
    assert await snapshotter.list() == []
    assert snapshotter.process_id == process_id
    assert os.getsid(process_id) != os.getsid(0)


async def test_a_close_waits_for_the_work_in_hand_and_leaves_no_process(tmp_path: Path) -> None:
    snapshotter = SnapshotterProcess((tmp_path / "store").as_uri(), (tmp_path / "keys").as_uri())
    await snapshotter.start()
    process_id = snapshotter.process_id
    assert process_id is not None
    image = write_image(tmp_path / "image", os.urandom(96 << 20))
    storing = asyncio.create_task(snapshotter.store(image, "key", FIELDS))
    await until(lambda: something_is_being_written(tmp_path) or storing.done())
    await snapshotter.close()
    assert (await storing).manifest_key == "key"
    assert is_gone(process_id)
    with pytest.raises(SnapshotterError):
        await snapshotter.list()


async def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from torpor_worker.snapshotter_process import SnapshotterProcess\n"
        "async def main():\n"
        "    async with SnapshotterProcess(sys.argv[1], sys.argv[2]) as snapshotter:\n"
        "        print(snapshotter.process_id, flush=True)\n"
        "        await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, tmp_path.as_uri(), (tmp_path / "keys").as_uri(), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    process_id = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    assert psutil.pid_exists(process_id)
    parent.kill()
    await parent.wait()
    await until(lambda: is_gone(process_id))


async def test_the_mark_of_the_owner_is_no_object_to_collect(snapshotter: SnapshotterProcess) -> None:
    await snapshotter.claim("one", has_objects=False)
    assert await snapshotter.list() == []
    with pytest.raises(SnapshotterError, match="another server's") as refusal:
        await snapshotter.claim("two", has_objects=False)
    assert not refusal.value.retryable


@pytest.mark.parametrize("url", ["https://bucket", "s3://", "/a/folder", "file://host/folder", "file:relative", ""])
def test_a_url_that_names_no_store_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(BadStoreUrl, match=r"as file:///|as s3://"):
        SnapshotterProcess(url, "file:///keys")
