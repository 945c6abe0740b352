"""Code in the background, against the real application: waited for, polled, followed and ended by its number."""

from __future__ import annotations

import time

import httpx2
import pytest

import torpor
from torpor._calls import Call
from torpor._deadline import Deadline


def test_a_wait_ends_in_time_whenever_bytes_come() -> None:
    now = 0.0
    deadline = Deadline(10, clock=lambda: now)
    assert deadline.limited(Call("GET", "/", answer_seconds=90)).answer_seconds == 10
    now = 1.0
    assert not deadline.too_patient()
    now = 4.0  # with 6 s left, a connection that waits for 10 s more could be late
    assert deadline.too_patient()
    assert deadline.limited(Call("GET", "/", answer_seconds=90)).answer_seconds == 6
    assert deadline.before(3) == 3
    now = 9.0
    assert deadline.before(3) == 1
    now = 10.0
    for step in (lambda: deadline.limited(Call("GET", "/")), deadline.too_patient, lambda: deadline.before(1)):
        with pytest.raises(torpor.NotFinished, match="after 10 s"):
            step()


def test_a_wait_without_an_end_is_as_patient_as_the_call() -> None:
    call = Call("GET", "/", answer_seconds=90)
    assert Deadline().limited(call) is call
    assert not Deadline().too_patient()


def test_a_wait_for_a_stream_that_never_stops_talking_ends_in_time() -> None:
    requests = []

    def keep_talking(request: httpx2.Request) -> httpx2.Response:
        def spaces() -> object:
            while True:
                time.sleep(0.002)
                yield b" "

        requests.append(request)
        return httpx2.Response(200, content=spaces())  # type: ignore[arg-type]

    client = torpor.Client(url="http://elsewhere", api_key="a.b", transport=httpx2.MockTransport(keep_talking))
    begun = time.monotonic()
    with pytest.raises(torpor.NotFinished):
        client.machine("m" * 16).execution(0).wait(timeout=0.2)
    assert 0.2 <= time.monotonic() - begun < 5
    assert len(requests) < 20
