"""Which packs a save leaves behind."""

from hypothesis import given
from hypothesis import strategies as st

from torpor_snapshotter.compaction import MOST_BYTES_AT_ONCE, MOST_PACKS, PACKS_AFTERWARDS, PackUse, packs_to_rewrite

uses = st.integers(1, 1 << 40).flatmap(lambda size: st.builds(PackUse, st.just(size), st.integers(0, size)))


def test_few_packs_that_are_mostly_live_stay() -> None:
    assert packs_to_rewrite([PackUse(100, 50), PackUse(1 << 40, 1 << 40)] * (MOST_PACKS // 2)) == set()


def test_a_pack_of_which_less_than_half_is_live_goes() -> None:
    assert packs_to_rewrite([PackUse(100, 50), PackUse(100, 49), PackUse(100, 0)]) == {1, 2}


def test_of_too_many_packs_the_smallest_go_so_that_the_next_saves_have_none_to_rewrite() -> None:
    packs = [PackUse(size, size) for size in range(100, 100 + MOST_PACKS + 1)]
    assert packs_to_rewrite(packs) == set(range(MOST_PACKS + 1 - PACKS_AFTERWARDS))


def test_of_too_many_large_packs_only_as_many_go_as_must() -> None:
    packs = [PackUse(MOST_BYTES_AT_ONCE, MOST_BYTES_AT_ONCE)] * (MOST_PACKS + 2)
    assert packs_to_rewrite(packs) == {0, 1}


@given(st.lists(uses, max_size=40))
def test_what_stays_is_few_packs_and_at_least_half_live(packs: list[PackUse]) -> None:
    left = packs_to_rewrite(packs)
    stay = [pack for place, pack in enumerate(packs) if place not in left]
    assert len(stay) <= MOST_PACKS
    assert all(2 * pack.live_bytes >= pack.size_bytes for pack in stay)
