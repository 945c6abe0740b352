"""What removes the parts of killed workers is started again if it is killed, and no more once it is done."""

import itertools
import signal

import pytest

from torpor_worker.guest import cleaners
from torpor_worker.guest.cleaners import Cleaners, Part


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tokens of those that were started; no pauses."""
    tokens: list[str] = []
    pids = itertools.count(100)

    def start(fields: dict[str, str], token: str) -> int:
        tokens.append(token)
        return next(pids)

    monkeypatch.setattr(cleaners.file_worker, "start_cleaning", start)
    monkeypatch.setattr(cleaners, "FIRST_PAUSE_SECONDS", 0.0)
    return tokens


def test_one_that_is_killed_is_started_again_until_one_is_done(started: list[str]) -> None:
    all_of_them = Cleaners()
    all_of_them.start(Part({}, "a"))
    all_of_them.reaped(100, signal.SIGKILL)
    assert (all_of_them.pids, all_of_them.deadline < float("inf")) == (set(), True)
    all_of_them.serve()
    assert (all_of_them.pids, started) == ({101}, ["a", "a"])
    all_of_them.reaped(101, 0)
    all_of_them.serve()
    assert (all_of_them.pids, all_of_them.deadline, len(started)) == (set(), float("inf"), 2)


def test_whoever_kills_all_of_them_is_left_his_part(started: list[str]) -> None:
    all_of_them = Cleaners()
    all_of_them.start(Part({}, "a"))
    while all_of_them.pids:
        all_of_them.reaped(*all_of_them.pids, signal.SIGKILL)
        all_of_them.serve()
    assert len(started) == 1 + cleaners.TRIES
