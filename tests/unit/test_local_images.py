"""Images on the local disk: what is kept, what goes, and what is trusted after a restart."""

import asyncio
from pathlib import Path

import pytest

from torpor_worker.local_images import LocalImages

MACHINE = "abcdefgh12345678"


def write_image(path: Path, size_bytes: int = 100) -> None:
    path.mkdir()
    (path / "pages.img").write_bytes(b"x" * size_bytes)


async def keep(images: LocalImages, machine: str, generation: int, *, stored: bool = True) -> Path:
    path = await images.new(machine, generation)
    write_image(path)
    await images.keep(machine, generation)
    if stored:
        await images.mark_stored(machine, generation)
    return path


async def test_an_image_is_found_once_it_is_whole(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 1000)
    assert images.path(MACHINE, 0) is None
    path = await images.new(MACHINE, 0)
    write_image(path)
    assert images.path(MACHINE, 0) is None
    assert await images.keep(MACHINE, 0) == 100
    assert images.path(MACHINE, 0) == path


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 250)
    await keep(images, "one", 0)
    await keep(images, "two", 0)
    images.path("one", 0)
    await keep(images, "three", 0)
    assert images.path("two", 0) is None
    assert images.path("one", 0)
    assert images.path("three", 0)
    assert images.size_bytes == 200
    assert not (tmp_path / "two" / "0").exists()


async def test_a_wake_does_not_wait_until_others_have_made_room(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 150)
    await keep(images, "one", 0)
    write_image(await images.new("fetched", 0))
    await images.keep("fetched", 0, fetched=True)
    assert images.path("one", 0)
    await keep(images, "fetched", 1)
    assert images.path("one", 0) is None
    assert images.path("fetched", 1)


async def test_what_is_not_stored_yet_or_in_use_stays_whatever_the_limit(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 0)
    await keep(images, "one", 0, stored=False)
    used = await images.new("two", 0)
    write_image(used)
    await images.keep("two", 0)
    with images.use("two", 0) as path:
        await images.mark_stored("two", 0)
        assert path == used
        assert used.is_dir()
    await images.mark_stored("one", 0)
    assert images.size_bytes == 0


async def test_a_newer_stored_image_replaces_the_older_ones_of_its_machine(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 10_000)
    await keep(images, MACHINE, 0)
    await keep(images, MACHINE, 1, stored=False)
    await keep(images, "other", 0)
    await keep(images, MACHINE, 2)
    assert images.path(MACHINE, 0) is None
    assert images.path(MACHINE, 1)
    assert images.path(MACHINE, 2)
    assert images.path("other", 0)


async def test_a_restart_keeps_what_is_stored_and_whole_in_order_of_use(tmp_path: Path) -> None:
    before = LocalImages(tmp_path, 10_000)
    await keep(before, "one", 5)
    await keep(before, "two", 0)
    await keep(before, "unstored", 0, stored=False)
    write_image(await before.new("half", 0))
    damaged = await keep(before, "damaged", 0)
    (damaged / "pages.img").write_bytes(b"short")
    before.path("one", 5)
    (tmp_path / "stray").write_text("not ours")

    after = LocalImages(tmp_path, 150)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]  # noqa: ASYNC240 - a test's own folder
    assert after.size_bytes == 200
    await keep(after, "three", 0)
    assert after.path("two", 0) is None


async def test_dropping_a_machine_removes_all_of_its_images_and_a_failed_capture_is_forgotten(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 1000)
    await keep(images, MACHINE, 0, stored=False)
    await keep(images, MACHINE, 1, stored=False)
    await images.new("other", 0)
    await images.forget("other", 0)
    await images.forget("other", 0)
    await images.drop(MACHINE)
    await images.drop(MACHINE)
    assert images.path(MACHINE, 1) is None
    assert images.size_bytes == 0
    assert not (tmp_path / MACHINE).exists()


async def test_images_that_others_remove_meanwhile_are_no_error(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 1000)
    for generation in range(4):
        await keep(images, MACHINE, generation, stored=False)
    await asyncio.gather(images.drop(MACHINE), images.forget(MACHINE, 3), images.drop(MACHINE))
    assert images.size_bytes == 0


async def test_a_second_try_at_an_image_starts_from_nothing(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 1000)
    write_image(await images.new(MACHINE, 0))
    assert not (await images.new(MACHINE, 0)).exists()


async def test_forks_have_the_image_and_it_is_counted_once(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 250)
    path = await keep(images, MACHINE, 7)
    await images.share(MACHINE, 7, ["one", "two"])
    forks = [images.path(name, 0) for name in ("one", "two")]
    assert [fork and (fork / "pages.img").samefile(path / "pages.img") for fork in forks] == [True, True]
    assert images.size_bytes == 100

    await keep(images, MACHINE, 8)
    assert images.path(MACHINE, 7) is None
    assert images.size_bytes == 200
    await images.drop(MACHINE)
    assert images.size_bytes == 100
    await keep(images, "one", 1)
    assert images.path("two", 0) == forks[1]
    assert (tmp_path / "two" / "0" / "image" / "pages.img").read_bytes() == b"x" * 100
    await images.drop("two")
    assert images.size_bytes == 100


async def test_room_is_made_by_giving_up_all_that_share_an_image(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 150)
    await keep(images, MACHINE, 0)
    await images.share(MACHINE, 0, ["one", "two"])
    await keep(images, "other", 0)
    assert [images.path(name, 0) for name in (MACHINE, "one", "two")] == [None] * 3
    assert images.size_bytes == 100


async def test_what_forks_have_is_trusted_after_a_restart_if_it_was_before(tmp_path: Path) -> None:
    before = LocalImages(tmp_path, 1000)
    await keep(before, "marked", 0)
    await before.share("marked", 0, ["one"])
    write_image(await before.new("fetched", 0))
    await before.keep("fetched", 0, fetched=True)
    await before.share("fetched", 0, ["two"])
    assert before.path("two", 0)

    after = LocalImages(tmp_path, 1000)
    assert after.path("one", 0)
    assert after.path("two", 0) is None
    assert after.size_bytes == 100


async def test_an_image_that_is_not_there_or_not_whole_is_not_shared(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 1000)
    await images.share(MACHINE, 0, ["one"])
    write_image(await images.new(MACHINE, 0))
    await images.share(MACHINE, 0, ["one"])
    assert images.path("one", 0) is None
    path = await keep(images, MACHINE, 1)
    (path / "pages.img").unlink()
    await images.share(MACHINE, 1, ["one"])
    assert images.path("one", 0) is None
    assert not (tmp_path / "one" / "0").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc"])
async def test_a_machine_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a machine"):
        await LocalImages(tmp_path, 1000).new(name, 0)


async def test_a_fetched_image_may_go_and_is_not_trusted_after_a_restart(tmp_path: Path) -> None:
    images = LocalImages(tmp_path, 250)
    write_image(await images.new("fetched", 0))
    await images.keep("fetched", 0, fetched=True)
    assert LocalImages(tmp_path, 250).path("fetched", 0) is None
    await keep(images, "one", 0)
    assert images.path("fetched", 0)
    await keep(images, "two", 0)
    assert images.path("one", 0) is None
