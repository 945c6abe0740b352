"""How many wait in advance."""

from hypothesis import given
from hypothesis import strategies as st

from torpor_worker.demand import BURST_SECONDS, MEMORY_SECONDS, Demand


def after(times: list[float], *, least: int = 1, most: int = 8) -> Demand:
    """Asked for at these times."""
    demand = Demand(least, most)
    for at in times:
        demand.ask(at)
    return demand


def test_as_many_as_came_at_once_not_as_came_one_by_one() -> None:
    assert after([0.0, 1.0, 2.0]).wanted(3.0) == 3
    assert after([0.0, 10.0, 20.0]).wanted(21.0) == 1


def test_a_burst_is_forgotten_in_time() -> None:
    burst = after([0.0] * 5)
    assert burst.wanted(MEMORY_SECONDS) == 5
    assert burst.wanted(MEMORY_SECONDS + 1) == 1


def test_nothing_waits_that_nobody_asked_for_unless_the_least_says_so() -> None:
    assert after([], least=0).wanted(0.0) == 0
    assert after([], least=2).wanted(0.0) == 2
    assert after([], least=2, most=0).wanted(0.0) == 0


@given(st.lists(st.floats(0, 2 * MEMORY_SECONDS), max_size=50), st.integers(0, 4), st.integers(0, 10))
def test_it_is_the_busiest_time_within_its_bounds(times: list[float], least: int, most: int) -> None:
    now = max(times, default=0.0)
    recent = sorted(at for at in times if at >= now - MEMORY_SECONDS)
    busiest = max((sum(at - BURST_SECONDS <= one <= at for one in recent) for at in recent), default=0)
    assert after(sorted(times), least=least, most=most).wanted(now) == min(most, max(least, busiest))
