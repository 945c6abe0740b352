"""Where the time of a wake goes."""

from itertools import chain, repeat

from torpor_worker.wake_timer import PHASES, WakeTimer


def timer(*times: float) -> WakeTimer:
    """One whose clock shows these times, one after the other."""
    clock = chain(times, repeat(times[-1]))
    return WakeTimer(lambda: next(clock))


def test_phases_follow_one_another_and_add_up() -> None:
    wake = timer(10.0, 10.5, 12.5)
    wake.ended("lease")
    wake.ended("sandbox", then=("first_frame", 0.25))
    expected = {**dict.fromkeys(PHASES, 0.0), "lease": 500.0, "sandbox": 1750.0, "first_frame": 250.0}
    assert wake.milliseconds == expected


def test_what_is_tried_again_is_counted_again() -> None:
    wake = timer(0.0, 1.0, 3.0)
    wake.ended("sandbox")
    wake.ended("sandbox")
    assert wake.milliseconds["sandbox"] == 3000.0


def test_a_phase_takes_no_longer_than_there_was_time() -> None:
    wake = timer(0.0, 1.0)
    wake.ended("fetch", then=("assemble", 5.0))
    assert (wake.milliseconds["fetch"], wake.milliseconds["assemble"]) == (0.0, 1000.0)
