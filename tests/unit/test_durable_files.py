"""What is said to be on the disk is there after a power cut, and what is half there is not taken for whole."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.disk import Disk
from tests.support.store_contract import body

from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.keys import FolderKeyStore
from torpor_worker.bodies import Bodies
from torpor_worker.local_images import LocalImages

WHOLE = b"torpor" * 100

Left = Callable[[], list[Path]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """On the disk that loses its power."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(folder, monkeypatch)
    yield disk
    disk.close()


@pytest.fixture
def left(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What a power cut would leave of it now, in either extreme."""

    def cut() -> list[Path]:
        into = tmp_path_factory.mktemp("cut")
        extremes = {"no-names": False, "all-names": True}
        return [disk.after_a_cut(into / name, names_are_there=there) for name, there in extremes.items()]

    return cut


def objects(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file() and ".incoming" not in path.parts)
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


async def test_an_object_is_whole_or_not_there_and_is_there_once_its_write_is_acknowledged(
    disk: Disk, folder: Path, left: Left
) -> None:
    def whole_or_nothing() -> None:
        for cut in left():
            assert set(objects(cut / "store").values()) <= {WHOLE}

    disk.at_each_step = whole_or_nothing
    store = FolderStore(folder / "store")
    for key in ("a", "machines/m/1", "machines/m/2"):
        await store.put_new(key, body(WHOLE[:100], WHOLE[100:]))
        for cut in left():
            assert await FolderStore(cut / "store").read(key) == WHOLE
    assert "link store/machines/m/2" in disk.steps


def test_a_machines_key_is_there_once_it_is_made_and_in_every_moment_of_a_rotation(
    disk: Disk, folder: Path, left: Left
) -> None:
    keys = FolderKeyStore(folder / "keys")
    made = {}
    for machine in ("m", "other"):
        made[machine] = keys.make(machine)

        for cut in left():
            assert FolderKeyStore(cut / "keys").get(machine) == made[machine]

    def all_there() -> None:
        for cut in left():
            assert {machine: FolderKeyStore(cut / "keys").get(machine) for machine in made} == made

    disk.at_each_step = all_there
    keys.rotate()
    all_there()
    assert disk.steps.count("rename keys/machines/m") == 2


async def test_a_local_image_is_trusted_only_if_it_is_whole_and_is_so_once_it_is_marked(
    disk: Disk, folder: Path, left: Left
) -> None:
    def trusted() -> list[bytes]:
        images = (LocalImages(cut, 10_000).path("m", 0) for cut in left())
        return [b"".join((image / name).read_bytes() for name in ("one", "two")) for image in images if image]

    disk.at_each_step = lambda: _all_are(WHOLE, trusted())
    images = LocalImages(folder, 10_000)
    image = await images.new("m", 0)
    image.mkdir()
    for parent in (folder, folder / "m"):  # that a name above it is lost may always be
        flush(parent)
    (image / "one").write_bytes(WHOLE[:100])
    (image / "two").write_bytes(WHOLE[100:])
    await images.keep("m", 0)
    await images.mark_stored("m", 0)
    assert trusted() == [WHOLE, WHOLE]
    assert "rename m/0/stored.json" in disk.steps


async def test_what_an_upload_wrote_is_there_once_it_is_said_to_be_durable(folder: Path, left: Left) -> None:
    bodies = Bodies(folder)
    async with bodies.stored("somebody", body(WHOLE[:100], WHOLE[100:])) as stored:
        for cut in left():
            assert (cut / stored.key).read_bytes() == WHOLE


def flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _all_are(wanted: bytes, found: list[bytes]) -> None:
    assert set(found) <= {wanted}
