"""Who is blamed for deaths: never nobody, and never for ever."""

from hypothesis import given
from hypothesis import strategies as st

from torpor_worker.suspicion import Suspicion


def test_a_process_that_had_finished_entries_dies_without_blame() -> None:
    assert Suspicion(5).died(running=False) == "again"


def test_a_generation_that_dies_twice_before_an_entry_finishes_is_set_aside() -> None:
    suspicion = Suspicion(5)
    suspicion.brought_back()
    assert suspicion.died(running=True) == "again"
    suspicion.brought_back()
    assert suspicion.died(running=True) == "set_aside"


def test_an_entry_in_whose_replay_the_process_dies_twice_is_undone() -> None:
    suspicion = Suspicion(5)
    for verdict in ("again", "undo"):
        suspicion.brought_back()
        suspicion.suspect = 7
        assert suspicion.died(running=False) == verdict
    assert suspicion.suspect == 7


def test_the_last_replayed_entry_is_blamed_for_deaths_in_idleness() -> None:
    suspicion = Suspicion(5)
    for verdict in ("again", "undo"):
        suspicion.brought_back()
        suspicion.replayed = [3, 4]
        assert suspicion.died(running=False) == verdict
    assert suspicion.suspect == 4


def test_instructions_that_kill_do_not_cost_a_generation_that_could_replay() -> None:
    suspicion = Suspicion(5)
    for _ in range(10):
        suspicion.brought_back()
        suspicion.replayed = [3]
        assert suspicion.died(running=True) == "again"


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), max_size=2)), min_size=40, max_size=40))
def test_deaths_in_idleness_always_come_to_an_end(deaths: list[tuple[bool, list[int]]]) -> None:
    suspicion = Suspicion(5)
    verdicts = []
    for suspected, replayed in deaths:
        suspicion.brought_back()
        suspicion.replayed = replayed
        suspicion.suspect = replayed[0] if suspected and replayed else None
        verdicts.append(suspicion.died(running=False))
        if verdicts[-1] == "set_aside":
            suspicion.gone_back()
    assert verdicts.count("undo") <= 5
    assert verdicts.count("set_aside") >= 15
