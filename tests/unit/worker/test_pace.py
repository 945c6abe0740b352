"""A guest that keeps this process busy is heard less often."""

import time

from torpor_worker.pace import AT_ONCE_SECONDS, LONGEST_SECONDS, SHARE, Pace


def _work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_who_says_little_never_waits() -> None:
    pace = Pace()
    for _ in range(100):
        pace.begin()
        assert pace.end() == 0


def test_who_takes_long_waits_for_so_long_that_his_share_is_kept() -> None:
    pace = Pace()
    pace.begin()
    _work(AT_ONCE_SECONDS + 0.1)
    assert 0.1 / SHARE * 0.5 < pace.end() < 0.1 / SHARE * 1.5


def test_what_is_owed_is_waited_for_in_pieces() -> None:
    pace = Pace()
    pace.begin()
    _work(AT_ONCE_SECONDS + 1.5 * SHARE * LONGEST_SECONDS)
    assert pace.end() == LONGEST_SECONDS
    pace.begin()
    assert pace.end() > LONGEST_SECONDS * 0.9


def test_the_time_in_which_this_process_had_no_processor_does_not_count() -> None:
    pace = Pace()
    pace.begin()
    time.sleep(2 * AT_ONCE_SECONDS)
    assert pace.end() == 0
