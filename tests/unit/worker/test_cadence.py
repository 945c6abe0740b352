"""When a machine is saved without stopping, as a function of what happened."""

from hypothesis import given
from hypothesis import strategies as st

from torpor_worker.cadence import QUIET_COSTS, SaveFacts, middle_save_due_at, save_due_at
from torpor_worker.config import WorkerConfig

CONFIG = WorkerConfig(quiet_save_seconds=2, save_interval_seconds=60)


def test_nothing_to_save_is_not_saved() -> None:
    assert save_due_at(SaveFacts(last_activity=100, last_save=50), CONFIG) is None


def test_the_first_save_comes_when_the_machine_was_quiet() -> None:
    assert save_due_at(SaveFacts(unsaved_since=100, last_activity=100), CONFIG) == 102


def test_a_machine_never_saved_is_saved_though_calls_keep_coming() -> None:
    assert save_due_at(SaveFacts(unsaved_since=100, last_activity=130), CONFIG) == 102


def test_a_quiet_save_waits_until_20_costs_after_the_last_one() -> None:
    facts = SaveFacts(unsaved_since=101, last_activity=101, last_save=100, cost_seconds=1, run_seconds=5)
    assert save_due_at(facts, CONFIG) == 120


def test_more_than_10_costs_of_run_time_are_saved_at_the_next_gap() -> None:
    facts = SaveFacts(unsaved_since=101, last_activity=112, last_save=100, cost_seconds=1, run_seconds=11)
    assert save_due_at(facts, CONFIG) == 101


def test_a_machine_called_every_second_is_saved_once_an_interval() -> None:
    facts = SaveFacts(unsaved_since=101, last_activity=170, last_save=100, cost_seconds=0.1, run_seconds=0.2)
    assert save_due_at(facts, CONFIG) == 161


def test_background_work_is_saved_once_an_interval() -> None:
    facts = SaveFacts(last_activity=100, background=True, last_save=103, cost_seconds=0.1)
    assert save_due_at(facts, CONFIG) == 163


def test_a_failed_save_is_not_tried_before_its_time() -> None:
    assert save_due_at(SaveFacts(unsaved_since=100, last_activity=100, retry_at=130), CONFIG) == 130


@given(
    unsaved_since=st.floats(0, 100),
    quiet=st.floats(0, 1000),
    last_save=st.none() | st.floats(0, 100),
    cost_seconds=st.floats(0, 2),
    run_seconds=st.floats(0, 1000),
)
def test_whatever_happens_what_ran_is_saved_within_the_interval_or_20_costs(
    unsaved_since: float, quiet: float, last_save: float | None, cost_seconds: float, run_seconds: float
) -> None:
    facts = SaveFacts(
        unsaved_since=unsaved_since,
        last_activity=unsaved_since + quiet,
        last_save=last_save,
        cost_seconds=cost_seconds,
        run_seconds=run_seconds,
    )
    due = save_due_at(facts, CONFIG)
    assert due is not None
    latest = max(unsaved_since + CONFIG.save_interval_seconds, (last_save or 0) + QUIET_COSTS * cost_seconds)
    assert due <= latest


def test_a_long_instruction_is_saved_in_its_middle_once_an_interval() -> None:
    assert middle_save_due_at(SaveFacts(), CONFIG) is None
    assert middle_save_due_at(SaveFacts(running_since=100), CONFIG) == 160
    assert middle_save_due_at(SaveFacts(running_since=100, last_save=100.2, cost_seconds=0.2), CONFIG) == 160


def test_what_ran_before_a_long_instruction_makes_the_save_in_its_middle_due_earlier() -> None:
    assert middle_save_due_at(SaveFacts(unsaved_since=70, running_since=100), CONFIG) == 130


def test_saves_in_the_middle_of_an_instruction_take_no_more_than_their_share_of_the_time() -> None:
    facts = SaveFacts(running_since=100, last_save=105, cost_seconds=5)
    assert middle_save_due_at(facts, CONFIG) == 205
    facts.retry_at = 300
    assert middle_save_due_at(facts, CONFIG) == 300
