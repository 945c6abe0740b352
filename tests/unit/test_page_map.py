"""References of pages, their runs, and pages found again by digest."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from torpor_snapshotter.known_pages import KnownPages, digest_pages
from torpor_snapshotter.page_map import PAGE_BYTES, BadPageMap, PageMap, packs_of, pages_of, reference

PACK_PAGES = [9, 1, 200]
KEY = bytes(32)

one_reference = st.one_of(
    st.just(np.uint64(0)),
    st.integers(0, len(PACK_PAGES) - 1).flatmap(
        lambda pack: st.builds(reference, st.just(pack), st.integers(0, PACK_PAGES[pack] - 1))
    ),
)


@given(st.lists(one_reference, max_size=60))
def test_any_references_come_back_from_their_map(some: list[np.uint64]) -> None:
    references = np.array(some, np.uint64)
    data = PageMap.of(references).to_bytes()
    assert PageMap.from_bytes(data, len(some), PACK_PAGES).references().tolist() == references.tolist()


def test_pages_that_follow_one_another_take_one_run_at_any_size() -> None:
    pages = (4 << 30) // PAGE_BYTES
    references = np.arange(pages, dtype=np.uint64) + reference(0, 0)
    references[1000:2000] = 0
    page_map = PageMap.of(references)
    assert len(page_map.to_bytes()) == 3 * 10
    assert np.array_equal(page_map.references(), references)


def test_pages_changed_here_and_there_in_4_gib_take_a_few_bytes_each() -> None:
    pages = (4 << 30) // PAGE_BYTES
    references = np.arange(pages, dtype=np.uint64) + reference(0, 0)
    changed = np.sort(np.random.default_rng(1).choice(pages, pages // 20, replace=False))
    references[changed] = np.arange(len(changed), dtype=np.uint64) + reference(1, 0)
    data = PageMap.of(references).to_bytes()
    assert len(zstandard.compress(data)) < 10 * len(changed)
    assert np.array_equal(PageMap.from_bytes(data, pages, [pages, len(changed)]).references(), references)


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (PageMap.of(np.array([reference(0, 8)])).to_bytes(), 2),
        (PageMap.of(np.array([reference(0, 9)])).to_bytes(), 1),
        (PageMap.of(np.array([reference(3, 0)])).to_bytes(), 1),
        (PageMap.of(np.array([reference(0, 8)])).to_bytes()[:-1], 1),
    ],
    ids=["too few pages", "a page that is not there", "a pack that is not there", "cut off"],
)
def test_a_map_that_fits_nothing_is_refused(data: bytes, pages: int) -> None:
    with pytest.raises(BadPageMap):
        PageMap.from_bytes(data, pages, PACK_PAGES)


@given(st.lists(st.lists(st.integers(0, 20), max_size=9), max_size=4), st.lists(st.integers(0, 30), max_size=30))
def test_a_page_is_found_in_a_pack_that_has_it_and_in_no_other(packs: list[list[int]], wanted: list[int]) -> None:
    def digests(numbers: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        return digest_pages((bytes([number]) * PAGE_BYTES for number in numbers), KEY)

    known = KnownPages({place: digests(numbers) for place, numbers in enumerate(packs)})
    found = known.find(digests(wanted))
    for number, pack, page, stored in zip(wanted, packs_of(found), pages_of(found), found, strict=True):
        if stored:
            assert packs[pack][page] == number
        else:
            assert not any(number in numbers for numbers in packs)


def test_a_digest_says_nothing_without_its_key() -> None:
    page = bytes(PAGE_BYTES)
    assert not np.array_equal(digest_pages([page], KEY), digest_pages([page], b"\1" * 32))
