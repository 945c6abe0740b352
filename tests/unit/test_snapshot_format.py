"""Images become objects and images again, and no damage passes."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torpor_snapshotter.frame import CHUNK_BYTES, PAGE_BYTES

from torpor_snapshotter.archive import Archive
from torpor_snapshotter.decoder import decode
from torpor_snapshotter.encoder import encode
from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.image import BadImage, files_of_image
from torpor_snapshotter.manifest import Manifest
from torpor_snapshotter.store import DamagedObject, NotStored, StoreError

Image = dict[str, bytes]

page = st.sampled_from([bytes(PAGE_BYTES), b"\xff" * PAGE_BYTES, bytes(PAGE_BYTES - 1) + b"\1", os.urandom(PAGE_BYTES)])
file_content = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda pages, tail: b"".join(pages) + tail, st.lists(page, max_size=6), st.binary(max_size=9)),
    st.builds(lambda gap, tail: b"x" + bytes(CHUNK_BYTES + gap) + tail, st.integers(-3, 3), st.binary(max_size=9)),
)
images = st.dictionaries(st.sampled_from(["pages.img", "checkpoint.img", "x"]), file_content, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(
        tmp_path / "image", {"pages.img": bytes(3 * PAGE_BYTES) + b"a" * 5000, "checkpoint.img": b"state" * 99}
    )


def write_image(folder: Path, files: Image) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def read_image(folder: Path) -> Image:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def encoded(image: Path, fields: dict[str, object], executor: ThreadPoolExecutor) -> bytes:
    manifest = Manifest(files_of_image(image), fields)
    return b"".join([piece async for piece in encode(image, manifest, executor)])


async def put(store: FolderStore, key: str, data: bytes) -> str:
    async def body() -> AsyncIterator[bytes]:
        yield data

    await store.delete(key)
    await store.put_new(key, body())
    return hashlib.sha256(data).hexdigest()


@given(files=images)
@settings(max_examples=60, deadline=None)
async def test_any_image_comes_back_as_it_was(executor: ThreadPoolExecutor, files: Image) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = write_image(folder / "image", files)
        store = FolderStore(folder / "store")
        sha256 = await put(store, "key", await encoded(image, {"machine": "m", "generation": 3}, executor))
        manifest = await decode(store, "key", sha256, folder / "out", executor)
        assert read_image(folder / "out") == files
        assert manifest.fields == {"machine": "m", "generation": 3}


@st.composite
def damages(draw: st.DrawFn, whole: bytes) -> bytes:
    """Another object than `whole`: cut off, longer, with bytes changed or swapped."""
    at = draw(st.integers(0, len(whole) - 1))
    return draw(
        st.sampled_from(
            [
                whole[:at],
                whole[:at] + bytes([whole[at] ^ (1 << draw(st.integers(0, 7)))]) + whole[at + 1 :],
                whole[:at] + whole[at + 1 :],
                whole[:at] + b"\0" + whole[at:],
                whole + draw(st.binary(min_size=1, max_size=20)),
                whole[at:] + whole[:at] if at else b"",
            ]
        ).filter(lambda damaged: damaged != whole)
    )


@pytest.mark.parametrize("noted", ["the digest of what was written", "the digest of the damaged object"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
async def test_any_damage_is_an_error_that_names_the_key(
    executor: ThreadPoolExecutor, noted: str, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = write_image(folder / "image", {"a": b"", "b": bytes(2 * PAGE_BYTES) + b"hello" * 1000, "c": b"0123"})
        whole = await encoded(image, {"machine": "m"}, executor)
        store = FolderStore(folder / "store")
        sha256 = await put(store, "m/key", data.draw(damages(whole)))
        if "written" in noted:
            sha256 = hashlib.sha256(whole).hexdigest()
        with pytest.raises(DamagedObject, match="m/key"):
            await decode(store, "m/key", sha256, folder / "out", executor)
        assert not (folder / "out").exists()


async def test_zero_pages_take_room_neither_in_the_object_nor_on_the_disk(
    executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "image", {"pages.img": b"begin" + bytes(16 << 20) + b"end"})
    whole = await encoded(image, {}, executor)
    assert len(whole) < 1000
    store = FolderStore(tmp_path / "store")
    await decode(store, "key", await put(store, "key", whole), tmp_path / "out", executor)
    assert read_image(tmp_path / "out") == read_image(image)
    assert (tmp_path / "out" / "pages.img").stat().st_blocks * 512 <= 4 * PAGE_BYTES


async def test_an_image_that_shrinks_while_it_is_encoded_is_an_error(executor: ThreadPoolExecutor, image: Path) -> None:
    manifest = Manifest(files_of_image(image), {})
    (image / "pages.img").write_bytes(b"less")
    with pytest.raises(BadImage, match=r"pages\.img became shorter"):
        async for _ in encode(image, manifest, executor):
            pass


def test_a_folder_with_anything_but_plain_files_is_no_image(tmp_path: Path) -> None:
    for make in (lambda path: path.mkdir(), lambda path: path.symlink_to("/etc/passwd"), os.mkfifo):
        folder = tmp_path / "image"
        folder.mkdir()
        make(folder / "entry")
        with pytest.raises(BadImage):
            files_of_image(folder)
        folder.rename(tmp_path / f"done{os.urandom(4).hex()}")
    with pytest.raises(BadImage):
        files_of_image(tmp_path / "none")


async def test_an_image_is_stored_verified_and_fetched(image: Path, tmp_path: Path) -> None:
    archive = Archive(FolderStore(tmp_path / "store"))
    stored = await archive.store(image, "m/0-a", {"machine": "m"})
    assert stored.image_bytes == 3 * PAGE_BYTES + 5000 + 5 * 99
    content = (tmp_path / "store" / "m" / "0-a").read_bytes()
    assert (stored.sha256, stored.stored_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    await archive.fetch("m/0-a", stored.sha256, tmp_path / "out")
    assert read_image(tmp_path / "out") == read_image(image)
    await archive.close()


@pytest.mark.parametrize("fault", [Fault.WRONG_WRITE, Fault.WRONG_READ, Fault.FULL, Fault.REFUSING, Fault.MISSING])
async def test_a_store_that_fails_is_an_error_and_leaves_no_object(fault: Fault, image: Path, tmp_path: Path) -> None:
    store = FaultyStore(FolderStore(tmp_path / "store"), fault)
    archive = Archive(store)
    with pytest.raises(StoreError):
        await archive.store(image, "key", {})
    store.fault = None
    if fault is not Fault.MISSING:  # then only the reading fails, and what was written is a row's garbage
        assert [key async for key in store.list()] == []
    await archive.close()


@pytest.mark.parametrize(("fault", "error"), [(Fault.WRONG_READ, DamagedObject), (Fault.MISSING, NotStored)])
async def test_a_fetch_that_fails_leaves_no_folder(
    fault: Fault, error: type[StoreError], image: Path, tmp_path: Path
) -> None:
    store = FaultyStore(FolderStore(tmp_path / "store"))
    archive = Archive(store)
    stored = await archive.store(image, "key", {})
    store.fault = fault
    with pytest.raises(error):
        await archive.fetch("key", stored.sha256, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    await archive.close()


async def test_a_fetch_goes_on_while_a_store_is_in_hand(image: Path, tmp_path: Path) -> None:
    store = FaultyStore(FolderStore(tmp_path / "store"))
    archive = Archive(store)
    first = await archive.store(image, "first", {})
    store.fault = Fault.SLOW
    storing = asyncio.create_task(archive.store(image, "second", {}))
    await asyncio.wait_for(store.waiting.wait(), 30)
    store.fault = None
    await archive.fetch("first", first.sha256, tmp_path / "out")
    assert not storing.done()
    store.go_on.set()
    await storing
    await archive.close()
