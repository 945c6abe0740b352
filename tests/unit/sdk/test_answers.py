"""Which questions of running code are still to be answered."""

from __future__ import annotations

from torpor._answers import Answers
from torpor._events import InputRequest


def test_a_question_that_is_asked_again_after_a_recovery_is_answered_once() -> None:
    answers = Answers("first\n")
    assert answers.wants(InputRequest(read_bytes=6), restarted=False)
    assert answers.body("zwö") == {"data": "zwö\n"}
    for read_bytes in (0, 6, 10):
        assert not answers.wants(InputRequest(read_bytes=read_bytes), restarted=True)
    assert answers.wants(InputRequest(read_bytes=11), restarted=True)


def test_what_forks_of_the_code_have_read_is_no_reason_to_wait_for_ever() -> None:
    answers = Answers("for a child\n")
    assert answers.wants(InputRequest(read_bytes=0), restarted=False)


def test_after_the_end_nothing_is_answered() -> None:
    answers = Answers(None)
    assert answers.body(None) == {"close": True}
    assert not answers.wants(InputRequest(), restarted=False)
