"""Images become packs and images again, whatever is shared, rewritten and collected; and no damage passes."""

import asyncio
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor_snapshotter.archive import Archive, ParentKey, StoredImage
from torpor_snapshotter.compaction import MOST_PACKS
from torpor_snapshotter.encoder import Encoder
from torpor_snapshotter.faulty_store import Fault, FaultyStore
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.image import BadImage, files_of_image
from torpor_snapshotter.keys import FolderKeyStore, KeyMissing
from torpor_snapshotter.pack_reader import PackReader
from torpor_snapshotter.page_map import PAGE_BYTES
from torpor_snapshotter.store import DamagedObject, NotStored, ObjectStore, StoreError

Image = dict[str, bytes]


def changed(page: bytes, at: int, change: bytes) -> bytes:
    """The page with some bytes of it written over."""
    return page[:at] + change + page[at + len(change) :]


PAGES = [bytes(PAGE_BYTES), b"\xff" * PAGE_BYTES, bytes(PAGE_BYTES - 1) + b"\1", *map(os.urandom, [PAGE_BYTES] * 5)]
RANDOM = os.urandom(1 << 20)

one_page = st.one_of(
    st.sampled_from(PAGES),
    st.builds(changed, st.sampled_from(PAGES), st.integers(0, PAGE_BYTES - 9), st.binary(min_size=1, max_size=9)),
)
paged = st.builds(lambda pages, tail: b"".join(pages) + tail, st.lists(one_page), st.binary(max_size=9))
small = st.builds(
    lambda start, length, change: RANDOM[start : start + length] + change,
    st.integers(0, 40),
    st.integers(0, 5000),
    st.binary(max_size=9),
)
images = st.builds(
    lambda pages, others: {"pages.img": pages, **others},
    paged,
    st.dictionaries(st.sampled_from(["checkpoint.img", "pages_meta.img"]), small),
)


@dataclass
class Line:
    """One machine's saves in a folder of its own, as a worker makes them."""

    folder: Path
    store: FaultyStore
    archive: Archive
    generation: int = 0

    async def save(self, files: Image, parent: StoredImage | None, *, local: bool = True) -> StoredImage:
        """The next generation; `local`: the parent's image is still on the local disk."""
        number = self.generation
        self.generation += 1
        image = write_image(self.folder / f"image-{number}", files)
        known = None
        if parent is not None:
            known = ParentKey(parent.key, parent.sha256, self.image(parent) if local else None)
        return await self.archive.store(image, f"m/{number}", {"machine": "m", "generation": number}, known)

    def image(self, stored: StoredImage) -> Path:
        """The local image of a save."""
        return self.folder / f"image-{stored.key.removeprefix('m/')}"

    async def restored(self, stored: StoredImage, like: StoredImage | None = None) -> Image:
        """What a wake on another host finds: nothing is remembered there, but perhaps the image of `like` is."""
        known = None if like is None else ParentKey(like.key, like.sha256, self.image(like))
        archive = Archive(self.store, FolderKeyStore(self.folder / "keys"))
        try:
            with tempfile.TemporaryDirectory(dir=self.folder) as name:
                await archive.fetch(stored.key, stored.sha256, Path(name) / "out", known)
                return read_image(Path(name) / "out")
        finally:
            await archive.close()


@asynccontextmanager
async def new_line(fault: Fault | None = None) -> AsyncIterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = FaultyStore(FolderStore(folder / "store"), fault)
        archive = Archive(store, FolderKeyStore(folder / "keys"))
        yield Line(folder, store, archive)
        await archive.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with new_line() as made:
        yield made


class ReadsCounted(FaultyStore):
    """Counts reads by key."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.of: Counter[str] = Counter()

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.of[key] += 1
        return await super().read(key, start, length)


def write_image(folder: Path, files: Image) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def read_image(folder: Path) -> Image:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(sequence=st.lists(st.tuples(images, st.booleans(), st.integers(0, 3)), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
async def test_any_sequence_of_images_saved_compacted_and_collected_comes_back_as_it_was(
    sequence: list[tuple[Image, bool, int]],
) -> None:
    """Each save has one of the last generations as its parent: a rollback is an older one. Two are kept."""
    async with new_line() as line:
        kept: list[tuple[StoredImage, Image]] = []
        for files, local, back in sequence:
            parent = kept[-1 - back % len(kept)][0] if kept else None
            kept.append((await line.save(files, parent, local=local), files))
            del kept[:-2]
            needed = {key for stored, _ in kept for key in (stored.key, *stored.packs)}
            for key in [key async for key in line.store.list()]:
                if key not in needed:
                    await line.store.delete(key)
            for stored, expected in kept:
                assert await line.restored(stored) == expected
                assert await line.restored(stored, like=kept[0][0]) == expected
                assert len(stored.packs) <= MOST_PACKS + 1


@given(
    pages=st.lists(st.sampled_from(PAGES[1:]), min_size=1, max_size=300),
    steps=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 299), st.integers(0, PAGE_BYTES - 600), st.binary(max_size=600))),
            st.integers(-PAGE_BYTES, PAGE_BYTES),
            st.sampled_from(["save", "save", "save", "from afar", "fork"]),
        ),
        max_size=30,
    ),
)
@settings(max_examples=15, deadline=None)
async def test_any_line_of_changes_inside_of_pages_comes_back_as_it_was(
    pages: list[bytes], steps: list[tuple[list[tuple[int, int, bytes]], int, str]]
) -> None:
    """Bytes are written over, the end moves, forks are made; only what the newest snapshot needs is kept."""
    async with new_line() as line:
        content = b"".join(pages)
        stored = await line.save({"pages.img": content}, None)
        for changes, longer, how in steps:
            for page, at, change in changes:
                content = changed(content, page % len(pages) * PAGE_BYTES + at, change)
            content = content[: max(1, len(content) + longer)] + b"\7" * longer
            parent = stored
            if how == "fork":
                key = f"m/{line.generation}"
                line.generation += 1
                [parent] = await line.archive.derive(stored.key, stored.sha256, {"f": key}, {"generation": 0})
                await line.store.delete(stored.key)
                line.image(stored).rename(line.image(parent))
            stored = await line.save({"pages.img": content}, parent, local=how != "from afar")
            for key in [key async for key in line.store.list()]:
                if key not in {stored.key, *stored.packs}:
                    await line.store.delete(key)
            assert await line.restored(stored) == {"pages.img": content}
            assert len(stored.packs) <= MOST_PACKS + 1


async def test_any_damage_is_an_error_that_names_the_object(line: Line) -> None:
    first = await line.save({"pages.img": b"".join(PAGES), "checkpoint.img": RANDOM[:3000]}, None)
    pages = [*PAGES[:-2], *(changed(page, 99, b"new") for page in PAGES[-2:])]
    files = {"pages.img": b"".join(pages) + RANDOM[:5000], "checkpoint.img": RANDOM[:3100]}
    second = await line.save(files, first)
    assert second.packs == (*first.packs, f"{second.key}.pack")
    manifest = await line.archive.read_manifest(second.key, second.sha256)
    assert (manifest.packs[1].pages, manifest.packs[1].differences) == (2, 2)
    # The last frame of a pack, the digests of its 7 or 2 pages, is read by saves only.
    index_bytes = {second.key: 0, second.packs[0]: 16 * 7 + 16, second.packs[1]: 16 * 2 + 16}
    choices = Random(1)
    for _ in range(300):
        key = choices.choice(list(index_bytes))
        path = line.folder / "store" / key
        whole = path.read_bytes()
        readable = len(whole) - index_bytes[key]
        at = choices.randrange(readable)
        flipped = whole[:at] + bytes([whole[at] ^ (1 << choices.randrange(8))]) + whole[at + 1 :]
        damaged = choices.choice([flipped, whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at:]])
        path.write_bytes(damaged)
        with pytest.raises(DamagedObject, match=f"{key} is damaged"):
            await line.restored(second)
        if key == second.key:  # also if nobody knows what the digest was
            with pytest.raises(StoreError):
                await line.restored(replace(second, sha256=hashlib.sha256(damaged).hexdigest()))
        path.write_bytes(whole)
    assert await line.restored(second) == files


async def test_a_manifest_of_a_later_format_is_refused_in_a_sentence_and_not_taken_for_damaged(line: Line) -> None:
    stored = await line.save({"checkpoint.img": RANDOM[:3000]}, None)
    path = line.folder / "store" / stored.key
    whole = path.read_bytes()
    later = whole[:8] + (2).to_bytes(2, "little") + whole[10:]
    path.write_bytes(later)
    with pytest.raises(StoreError, match=f"{stored.key} cannot be read: it has version 2 .* later version") as refused:
        await line.restored(replace(stored, sha256=hashlib.sha256(later).hexdigest()))
    assert not isinstance(refused.value, DamagedObject)


async def test_a_long_line_refers_to_few_packs_and_costs_little_for_each_save(line: Line) -> None:
    files = {"pages.img": RANDOM, "checkpoint.img": RANDOM[:9000]}
    stored = await line.save(files, None)
    costs = []
    for number in range(3 * MOST_PACKS):
        at = number * 5 * PAGE_BYTES % len(RANDOM)
        files = {**files, "pages.img": files["pages.img"][:at] + b"new!" + files["pages.img"][at + 4 :]}
        stored = await line.save(files, stored)
        assert len(stored.packs) <= MOST_PACKS + 1
        costs.append(stored.stored_bytes)
    assert await line.restored(stored) == files
    assert sum(costs) < len(costs) * 8 * PAGE_BYTES


async def test_a_page_that_changes_in_a_few_bytes_again_and_again_is_stored_as_those(line: Line) -> None:
    pages = [os.urandom(PAGE_BYTES) for _ in range(200)]
    first = stored = await line.save({"pages.img": b"".join(pages)}, None)
    for number in range(1, 5):
        files = {"pages.img": b"".join(changed(page, 40 * number, b"count") for page in pages)}
        stored = await line.save(files, stored)
        assert stored.stored_bytes < 200 * 40
        assert stored.packs == (first.packs[0], f"m/{number}.pack")  # no chain: only the base and the difference
    assert await line.restored(stored) == files


async def test_a_page_that_moved_and_changed_in_a_few_bytes_is_stored_as_those(line: Line) -> None:
    pages = [os.urandom(PAGE_BYTES) for _ in range(64)]
    first = await line.save({"pages.img": b"".join(pages)}, None)
    counted = [changed(page, 8, b"count") if number % 4 else page for number, page in enumerate(pages)]
    second = await line.save({"pages.img": b"".join(counted)}, first)
    counted = [changed(page, 80, b"count") if number % 4 else page for number, page in enumerate(pages)]
    files = {"pages.img": b"".join([*counted[:20], *counted[25:]])}
    third = await line.save(files, second)
    assert third.stored_bytes < PAGE_BYTES
    assert third.packs == (first.packs[0], "m/2.pack")
    assert await line.restored(third) == files


async def test_a_long_line_with_pages_that_change_move_and_go_comes_back_as_it_was(line: Line) -> None:
    choices = Random(2)
    pages = [choices.randbytes(PAGE_BYTES) for _ in range(300)]
    stored = await line.save({"pages.img": b"".join(pages)}, None)
    for _ in range(60):
        for place in choices.sample(range(len(pages)), 40):
            length = choices.choice([1, 1, 1, 300, 700])
            change = choices.randbytes(length)
            pages[place] = changed(pages[place], choices.randrange(PAGE_BYTES - length), change)
        at, count = choices.randrange(len(pages)), choices.randrange(4)
        pages[at:at] = [choices.choice([choices.randbytes(PAGE_BYTES), bytes(PAGE_BYTES)])] * count
        del pages[(gone := choices.randrange(len(pages) - 4)) : gone + count]
        files = {"pages.img": b"".join(pages)[: -choices.randrange(1, PAGE_BYTES)]}
        stored = await line.save(files, stored, local=choices.random() < 0.9)
        for key in [key async for key in line.store.list()]:
            if key not in {stored.key, *stored.packs}:
                await line.store.delete(key)
        assert await line.restored(stored) == files
        assert len(stored.packs) <= MOST_PACKS + 1


async def test_a_difference_is_never_taken_from_a_local_image_that_is_not_what_was_stored(line: Line) -> None:
    pages = [os.urandom(PAGE_BYTES) for _ in range(2)]
    first = await line.save({"pages.img": b"".join(pages)}, None)
    write = line.image(first) / "pages.img"
    write.write_bytes(changed(pages[0], 1000, b"damage") + pages[1])
    files = {"pages.img": b"".join(changed(page, 7, b"new") for page in pages)}
    second = await line.save(files, first)
    assert await line.restored(second) == files
    assert PAGE_BYTES < second.stored_bytes < 2 * PAGE_BYTES


async def test_a_page_that_moved_or_came_back_is_not_stored_again(line: Line) -> None:
    pages = [RANDOM[start : start + PAGE_BYTES] for start in range(0, 100 * PAGE_BYTES, PAGE_BYTES)]
    first = await line.save({"pages.img": b"".join(pages)}, None)
    moved = await line.save({"pages.img": PAGES[1] + b"".join(pages[1:])}, first, local=False)
    back = await line.save({"pages.img": b"".join(pages)}, moved)
    assert first.stored_bytes > 100 * PAGE_BYTES
    assert moved.stored_bytes < 1000
    assert back.stored_bytes < 1000


async def test_pages_that_a_local_image_has_are_not_read_from_the_store(line: Line) -> None:
    pages = [RANDOM[start : start + PAGE_BYTES] for start in range(0, 256 * PAGE_BYTES, PAGE_BYTES)]
    template = await line.save({"pages.img": b"".join(pages)}, None)
    new = os.urandom(PAGE_BYTES)
    files = {"pages.img": b"".join([new, *pages[100:], PAGES[0], *pages[:100]]) + b"the end"}
    stored = await line.save(files, template)
    pack = line.folder / "store" / template.packs[0]
    pack.write_bytes(bytes(pack.stat().st_size))
    with pytest.raises(DamagedObject):
        await line.restored(stored)
    assert await line.restored(stored, like=template) == files


async def test_a_local_image_that_is_gone_or_cut_short_is_not_needed(line: Line) -> None:
    template = await line.save({"pages.img": RANDOM}, None)
    files = {"pages.img": RANDOM[PAGE_BYTES:] + RANDOM[:PAGE_BYTES]}
    stored = await line.save(files, template)
    (line.image(template) / "pages.img").write_bytes(RANDOM[:-PAGE_BYTES])
    assert await line.restored(stored, like=template) == files
    (line.image(template) / "pages.img").unlink()
    assert await line.restored(stored, like=template) == files


async def test_zero_pages_take_room_neither_in_the_store_nor_on_the_disk(line: Line) -> None:
    files = {"pages.img": b"begin" + bytes(64 << 20) + b"end"}
    stored = await line.save(files, None)
    assert stored.stored_bytes < 1000
    await line.archive.fetch(stored.key, stored.sha256, line.folder / "out")
    assert read_image(line.folder / "out") == files
    assert (line.folder / "out" / "pages.img").stat().st_blocks * 512 <= 4 * PAGE_BYTES


async def test_a_small_file_is_stored_as_what_changed_in_it(line: Line) -> None:
    first = await line.save({"checkpoint.img": RANDOM}, None)
    second = await line.save({"checkpoint.img": RANDOM[:5000] + b"new" + RANDOM[5000:]}, first)
    third = await line.save({"checkpoint.img": RANDOM[:9000] + b"newer" + RANDOM[9000:]}, second)
    assert first.stored_bytes > len(RANDOM)
    assert max(second.stored_bytes, third.stored_bytes) < 5000
    assert first.packs[0] in third.packs
    assert second.packs[-1] not in third.packs


async def test_random_data_costs_little_more_than_itself(line: Line) -> None:
    content = np.random.default_rng(1).bytes(20 << 20)
    stored = await line.save({"pages.img": content}, None)
    assert stored.stored_bytes < 1.01 * len(content)


async def test_nothing_of_an_image_can_be_read_in_the_store(line: Line) -> None:
    secret = b"correct horse battery staple"
    files = {"pages.img": secret * 500, "checkpoint.img": secret}
    stored = await line.archive.store(
        write_image(line.folder / "image", files), "m/0", {"machine": "m", "generation": 0, "tags": {"note": "staple"}}
    )
    for key in (stored.key, *stored.packs):
        assert b"staple" not in (line.folder / "store" / key).read_bytes()


async def test_without_its_key_a_machine_cannot_be_restored_and_a_save_goes_on(line: Line) -> None:
    files = {"pages.img": RANDOM}
    stored = await line.save(files, None)
    await line.archive.destroy_key("m")
    with pytest.raises(KeyMissing, match="machine m"):
        await line.restored(stored)
    again = await line.save(files, stored)
    assert again.packs == ("m/1.pack",)
    assert await line.restored(again) == files
    with pytest.raises(KeyMissing, match="another one"):
        await line.restored(stored)


@pytest.mark.parametrize("lost", ["m/0", "m/0.pack"])
async def test_what_was_lost_of_the_parent_is_stored_again(line: Line, lost: str) -> None:
    files = {"pages.img": RANDOM, "checkpoint.img": b"state"}
    first = await line.save(files, None)
    await line.store.delete(lost)
    archive = Archive(line.store, FolderKeyStore(line.folder / "keys"))  # one that remembers nothing of the pack
    second = await replace(line, archive=archive).save(files, first)
    await archive.close()
    assert second.packs == ("m/1.pack",)
    assert await line.restored(second) == files


async def test_a_machine_that_starts_from_a_template_shares_its_pages_and_outlives_its_key(line: Line) -> None:
    files = {"pages.img": RANDOM, "checkpoint.img": b"state"}
    template = await line.archive.store(
        write_image(line.folder / "template", files), "templates/data", {"machine": "template-data", "generation": 0}
    )
    first = await line.archive.store(
        write_image(line.folder / "image", {**files, "pages.img": RANDOM + PAGES[1]}),
        "m/0",
        {"machine": "m", "generation": 0},
        ParentKey(template.key, template.sha256, line.folder / "template"),
    )
    assert first.stored_bytes < 2000
    assert first.packs == ("templates/data.pack", "m/0.pack")
    await line.archive.destroy_key("template-data")
    assert await line.restored(first) == {**files, "pages.img": RANDOM + PAGES[1]}


async def test_a_fork_is_restored_from_the_same_packs_when_the_key_it_came_from_is_destroyed(line: Line) -> None:
    files = {"pages.img": os.urandom(64 * PAGE_BYTES), "checkpoint.img": b"state"}
    source = await line.save(files, None)
    [fork] = await line.archive.derive(source.key, source.sha256, {"f": "f/0"}, {"generation": 0})
    await line.archive.destroy_key("m")
    await line.store.delete(source.key)

    assert (fork.packs, fork.image_bytes) == (source.packs, source.image_bytes)
    assert fork.stored_bytes < 4096
    assert await line.restored(fork) == files
    manifest = await line.archive.read_manifest(fork.key, fork.sha256)
    assert (manifest.fields["machine"], manifest.fields["generation"]) == ("f", 0)


async def test_a_hundred_forks_read_their_source_once(line: Line) -> None:
    source = await line.save({"pages.img": b"".join(PAGES)}, None)
    reads = ReadsCounted(line.store)
    archive = Archive(reads, FolderKeyStore(line.folder / "keys"))
    keys = {f"f{number}": f"f/{number}" for number in range(100)}
    forks = await archive.derive(source.key, source.sha256, keys, {"generation": 0})
    await archive.close()

    assert [fork.key for fork in forks] == list(keys.values())
    assert reads.of[source.key] == 1
    manifest = await line.archive.read_manifest(forks[99].key, forks[99].sha256)
    assert (manifest.fields["machine"], manifest.fields["generation"]) == ("f99", 0)


async def test_an_image_that_shrinks_while_it_is_encoded_is_an_error(line: Line) -> None:
    image = write_image(line.folder / "image", {"pages.img": RANDOM})
    files = files_of_image(image)
    (image / "pages.img").write_bytes(b"less")
    with ThreadPoolExecutor(1) as threads, pytest.raises(BadImage, match=r"pages\.img became shorter"):
        async for _ in Encoder(image, files, None, PackReader(line.store), threads, "m/0.pack").pieces():
            pass


async def test_a_fetch_goes_on_while_a_store_is_in_hand(line: Line) -> None:
    first = await line.save({"pages.img": RANDOM}, None)
    line.store.fault = Fault.SLOW
    storing = asyncio.create_task(line.save({"pages.img": PAGES[3]}, None))
    await asyncio.wait_for(line.store.waiting.wait(), 30)
    line.store.fault = None
    await line.archive.fetch(first.key, first.sha256, line.folder / "out")
    assert not storing.done()
    line.store.go_on.set()
    await storing


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


@pytest.mark.parametrize("fault", [Fault.WRONG_WRITE, Fault.WRONG_READ, Fault.FULL, Fault.REFUSING, Fault.MISSING])
async def test_a_store_that_fails_is_an_error_and_leaves_no_object(fault: Fault) -> None:
    async with new_line(fault) as line:
        with pytest.raises(StoreError):
            await line.save({"pages.img": RANDOM}, None)
        left = FolderStore(line.folder / "store")
        if fault is not Fault.MISSING:  # then only the reading fails, and what was written is a row's garbage
            assert [key async for key in left.list()] == []


@pytest.mark.parametrize(("fault", "error"), [(Fault.WRONG_READ, DamagedObject), (Fault.MISSING, NotStored)])
async def test_a_fetch_that_fails_leaves_no_folder(fault: Fault, error: type[StoreError]) -> None:
    async with new_line() as line:
        stored = await line.save({"pages.img": RANDOM}, None)
        store = FaultyStore(line.store, fault)
        archive = Archive(store, FolderKeyStore(line.folder / "keys"))
        with pytest.raises(error):
            await archive.fetch(stored.key, stored.sha256, line.folder / "out")
        assert not (line.folder / "out").exists()
        await archive.close()
