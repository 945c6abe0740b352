from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from torpor_snapshotter.retention import LINES_KEPT, Generation, superseded, thinned_before

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
"""A Wednesday."""


def microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def every(gap: timedelta, count: int) -> list[Generation]:
    """Quiescent generations with a time between them, the last of them at noon."""
    return [Generation(number, True, microseconds(NOON - (count - 1 - number) * gap)) for number in range(count)]


def kept(generations: list[Generation], now: datetime) -> list[int]:
    garbage = superseded(generations, microseconds(now))
    return [one.number for one in generations if one.number not in garbage]


def test_all_of_the_last_hour_are_kept() -> None:
    assert len(kept(every(timedelta(minutes=1), 60), NOON)) == 60


def test_an_hour_that_is_over_for_an_hour_keeps_its_last() -> None:
    generations = every(timedelta(minutes=20), 10)  # 9:00, 9:20 ... 12:00

    assert kept(generations, NOON) == [2, 5, 6, 7, 8, 9]
    assert kept(generations, NOON + timedelta(minutes=59)) == [2, 5, 6, 7, 8, 9]
    assert kept(generations, NOON + timedelta(minutes=60)) == [2, 5, 8, 9]


def test_a_day_that_is_over_for_a_day_keeps_its_last_and_a_week_after_a_month_too() -> None:
    generations = every(timedelta(hours=1), 24 * 60)
    moments = {one.number: NOON - timedelta(hours=24 * 60 - 1 - one.number) for one in generations}
    stay = [moments[number] for number in kept(generations, NOON)]

    assert all(moment in stay for moment in moments.values() if moment.date() >= NOON.date() - timedelta(days=1))
    days = [moment for moment in stay if moment.date() < NOON.date() - timedelta(days=1)]
    assert all(moment.hour == 23 for moment in days)
    weeks = [moment for moment in days if moment < NOON - timedelta(days=37)]
    assert weeks
    assert all(moment.weekday() == 6 for moment in weeks)


def test_a_machine_in_use_for_years_keeps_a_bounded_number_and_one_a_week() -> None:
    generations = every(timedelta(hours=1), 24 * 365 * 2)

    assert len(kept(generations, NOON)) <= 2 + 48 + 37 + 105


def test_one_in_which_nothing_ran_is_preferred_to_a_later_one_in_which_something_did() -> None:
    generations = [
        replace(one, quiescent=one.number != 2, kept=one.number == 2) for one in every(timedelta(minutes=20), 10)
    ]

    assert kept(generations, NOON)[:2] == [1, 2]


def test_the_second_newest_quiescent_generation_all_newer_ones_and_the_newest_of_all_are_kept_for_ever() -> None:
    flags = [True, True, False, True, False]
    generations = [Generation(number, flag, microseconds(NOON)) for number, flag in enumerate(flags)]

    assert kept(generations, NOON + timedelta(days=999)) == [1, 3, 4]


def test_one_in_the_middle_of_an_instruction_goes_as_soon_as_its_line_has_a_newer_one() -> None:
    at = microseconds(NOON)
    middles = [Generation(number, False, at) for number in range(3)]
    aside = [Generation(number, False, at, behind_head=False, line=1) for number in (3, 4)]

    assert kept([*middles, *aside], NOON) == [2, 4]
    assert kept([*middles, Generation(5, True, at)], NOON) == [5]
    assert kept([replace(middles[0], kept=True), *middles[1:]], NOON) == [0, 2]


def test_nothing_is_given_up_before_there_are_two_quiescent_generations() -> None:
    generations = [Generation(number, True, microseconds(NOON), behind_head=number == 2) for number in range(4)]

    assert kept(generations, NOON + timedelta(days=999)) == [0, 1, 2, 3]


def test_generations_that_were_set_aside_do_not_count_and_their_hour_keeps_one_of_them() -> None:
    at = microseconds(NOON)
    mine = [Generation(number, True, at) for number in (0, 1)] + [Generation(number, True, at) for number in (5, 6)]
    aside = [Generation(number, True, at, behind_head=False) for number in (2, 3, 4)]
    newest_lines = [Generation(10 + line, True, at, False, line + 1) for line in range(LINES_KEPT)]
    generations = sorted([*mine, *aside, *newest_lines], key=lambda one: one.number)

    assert kept(generations, NOON + timedelta(days=999))[:2] == [5, 6]
    aged = [replace(one, created_at=one.created_at - (one.number < 5) * 10**10) for one in generations]
    assert kept(aged, NOON + timedelta(days=1))[:4] == [1, 4, 5, 6]


YEAR = 365 * 24 * 3600 * 1_000_000
times = st.one_of(
    st.integers(0, 4 * 3600 * 1_000_000), st.integers(0, YEAR // 4), st.integers(-YEAR, 3 * YEAR)
)  # also clocks that jumped


@st.composite
def machines(draw: st.DrawFn) -> list[Generation]:
    return [
        Generation(
            number,
            draw(st.booleans()),
            draw(times),
            draw(st.booleans()),
            draw(st.integers(0, 2 * LINES_KEPT)),
            draw(st.integers(0, 9)) == 0,
        )
        for number in range(draw(st.integers(0, 30)))
    ]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(generations=machines(), now=times)
def test_what_is_always_kept_is_kept_whatever_the_clock_says(generations: list[Generation], now: int) -> None:
    garbage = superseded(generations, now)
    quiescent = [one.number for one in generations if one.behind_head and one.quiescent]

    over = {number for number in garbage if generations[number].quiescent}
    assert not over or len(quiescent) >= 2
    assert all(number < quiescent[-2] for number in over)
    assert not garbage & {one.number for one in generations if one.kept}
    ends = {one.line: one.number for one in generations}
    assert not garbage & {ends[line] for line in sorted(ends)[-LINES_KEPT:]}
    assert all(generations[number].created_at + 3600 * 1_000_000 <= now for number in over)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(generations=machines(), now=times)
def test_whatever_goes_leaves_another_of_its_hour_day_or_week(generations: list[Generation], now: int) -> None:
    garbage = superseded(generations, now)
    hour = 3600 * 1_000_000
    day = 24 * hour
    for number in garbage:
        gone = generations[number]
        if not gone.quiescent and any(one.line == gone.line and one.number > number for one in generations):
            continue
        age = now - gone.created_at
        span = hour if age < day else day if age < 30 * day else 7 * day
        assert any(
            (one.created_at - 4 * day) // span == (gone.created_at - 4 * day) // span
            for one in generations
            if one.number not in garbage and one.behind_head == gone.behind_head
        )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(generations=machines(), earlier=times, later=times)
def test_it_does_not_matter_when_and_how_often_generations_are_given_up(
    generations: list[Generation], earlier: int, later: int
) -> None:
    earlier, later = sorted((earlier, later))
    first = superseded(generations, earlier)
    rest = [one for one in generations if one.number not in first]

    assert superseded(rest, earlier) == set()
    assert first <= superseded(generations, later)
    assert first | superseded(rest, later) == superseded(generations, later)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(generations=machines(), now=times, chosen=st.sets(st.integers(0, 29)))
def test_any_part_of_them_gives_a_part_of_the_answer(generations: list[Generation], now: int, chosen: set[int]) -> None:
    some = [one for one in generations if one.number in chosen]

    assert superseded(some, now) <= superseded(generations, now)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(generations=machines(), now=times)
def test_what_is_young_is_over_only_in_the_middle_of_an_instruction(generations: list[Generation], now: int) -> None:
    young = {one.number for one in generations if one.created_at >= thinned_before(now)}

    assert not any(generations[number].quiescent for number in superseded(generations, now) & young)
