"""The cache of what was read of a store: what it saves, what it never believes, and how large it becomes."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.store_contract import body

from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.read_cache import PIECE_BYTES, ReadCache
from torpor_snapshotter.store import NotStored

CONTENT = os.urandom(3 * PIECE_BYTES + 1000)
ROOM_BYTES = 64 * PIECE_BYTES


class Counted(FolderStore):
    """A store in a folder that notes what is read of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[tuple[str, int, int | None]] = []

    async def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.reads.append((key, start, length))
        return await super().read(key, start, length)


@pytest.fixture
async def store(tmp_path: Path) -> Counted:
    store = Counted(tmp_path / "store")
    await store.put_new("pack", body(CONTENT))
    return store


def cache_of(store: Counted, tmp_path: Path, limit_bytes: int = ROOM_BYTES) -> ReadCache:
    return ReadCache(store, tmp_path / "cache", limit_bytes)


async def test_what_was_read_is_not_read_again_and_not_after_a_restart(store: Counted, tmp_path: Path) -> None:
    cache = cache_of(store, tmp_path)
    assert await cache.read("pack", 5, 2 * PIECE_BYTES) == CONTENT[5 : 5 + 2 * PIECE_BYTES]
    await cache.settled()
    store.reads.clear()
    assert await cache.read("pack", PIECE_BYTES + 3, 10) == CONTENT[PIECE_BYTES + 3 : PIECE_BYTES + 13]
    again = cache_of(store, tmp_path)
    assert await again.read("pack", 0, PIECE_BYTES) == CONTENT[:PIECE_BYTES]
    assert store.reads == []
    assert await again.read("pack") == CONTENT
    assert store.reads == [("pack", 3 * PIECE_BYTES, None)]
    await again.settled()
    assert await again.read("pack", 10) == CONTENT[10:]
    assert len(store.reads) == 1


@given(
    sizes=st.sampled_from([0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES]),
    reads=st.lists(
        st.tuples(
            st.integers(0, 2 * PIECE_BYTES + 2),
            st.one_of(st.none(), st.integers(0, 2 * PIECE_BYTES), st.integers(0, 9)),
        ),
        max_size=4,
    ),
)
async def test_any_range_is_what_the_store_has(
    tmp_path_factory: pytest.TempPathFactory, sizes: int, reads: list[tuple[int, int | None]]
) -> None:
    folder = tmp_path_factory.mktemp("range")
    store = Counted(folder / "store")
    await store.put_new("pack", body(CONTENT[:sizes]))
    cache = cache_of(store, folder)
    for start, length in reads:
        assert await cache.read("pack", start, length) == await store.read("pack", start, length)
        await cache.settled()


@pytest.mark.parametrize("harm", ["cut", "altered", "swapped", "gone"])
async def test_a_piece_that_is_not_as_it_was_written_is_read_again(store: Counted, tmp_path: Path, harm: str) -> None:
    cache = cache_of(store, tmp_path)
    await cache.read("pack")
    await cache.settled()
    piece, other, *_ = sorted((tmp_path / "cache").iterdir())
    data = piece.read_bytes()
    if harm == "gone":
        piece.unlink()
    else:
        torn = {"cut": data[:-7], "altered": data[:-1] + bytes([data[-1] ^ 1]), "swapped": other.read_bytes()}
        piece.write_bytes(torn[harm])
    assert await cache.read("pack") == CONTENT
    assert await cache_of(store, tmp_path).read("pack") == CONTENT


async def test_an_object_that_is_dropped_is_read_again(store: Counted, tmp_path: Path) -> None:
    cache = cache_of(store, tmp_path)
    await cache.read("pack")
    await cache.drop("pack")
    assert cache.size_bytes == 0
    assert list((tmp_path / "cache").iterdir()) == []
    await store.delete("pack")
    with pytest.raises(NotStored):
        await cache.read("pack", 0, 10)


async def test_what_was_used_last_stays_within_the_limit(store: Counted, tmp_path: Path) -> None:
    for name in "abc":
        await store.put_new(name, body(CONTENT[:1000]))
    cache = cache_of(store, tmp_path, 2 * 1100)
    for name in ("a", "b", "a", "c"):
        await cache.read(name)
        await cache.settled()
    assert cache.size_bytes <= 2200
    store.reads.clear()
    await cache.read("a")
    await cache.read("c")
    assert store.reads == []
    await cache.read("b")
    assert [key for key, *_ in store.reads] == ["b"]
    await cache.settled()
    assert cache_of(store, tmp_path, 1100).size_bytes == 1032


async def test_a_disk_that_takes_nothing_costs_no_read(store: Counted, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    cache = cache_of(store, tmp_path)
    assert await cache.read("pack") == CONTENT
    await cache.settled()
    assert cache.size_bytes == 0
    (tmp_path / "cache").unlink()
    await cache.read("pack")
    await cache.settled()
    assert cache.size_bytes > len(CONTENT)
    (tmp_path / "cache").rename(tmp_path / "away")
    (tmp_path / "cache").write_text("in the way")
    assert await cache.read("pack") == CONTENT


async def test_what_a_dead_process_was_writing_is_removed(store: Counted, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".half").write_bytes(b"half")
    cache_of(store, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
