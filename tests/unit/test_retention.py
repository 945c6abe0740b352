from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from torpor_snapshotter.retention import Generation, superseded


def line(*quiescent: bool) -> list[Generation]:
    """Generations 0, 1, 2... each on top of the one before."""
    return [Generation(number, number - 1 if number else None, flag) for number, flag in enumerate(quiescent)]


def test_the_second_newest_quiescent_generation_and_all_newer_ones_are_kept() -> None:
    assert superseded(line(True, True, False, True, False), head=4) == {0}


def test_nothing_is_given_up_before_there_are_two_quiescent_generations() -> None:
    assert superseded(line(False, False, True, False), head=3) == set()


def test_generations_that_were_set_aside_do_not_count() -> None:
    generations = [*line(True, True, True, True), Generation(4, 1, quiescent=True)]

    assert superseded(generations, head=4) == {0}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_two_newest_quiescent_ancestors_of_the_head_always_stay(data: st.DataObject) -> None:
    generations: list[Generation] = []
    for number in range(data.draw(st.integers(1, 12))):
        parent = data.draw(st.sampled_from([None, *range(number)]))
        generations.append(Generation(number, parent, data.draw(st.booleans())))
    head = data.draw(st.integers(0, len(generations) - 1))

    garbage = superseded(generations, head)
    ancestors = []
    current: int | None = head
    while current is not None:
        ancestors.append(generations[current])
        current = generations[current].parent
    quiescent = [generation.number for generation in ancestors if generation.quiescent]
    assert head not in garbage
    assert not garbage & set(quiescent[:2])
    assert not garbage or len(quiescent) >= 2
