"""What the guest says waits for company only while nothing in it is urgent."""

import os
import time

from torpor_worker.guest.frames import FrameReader, FrameType
from torpor_worker.guest.outbox import Outbox


def test_what_can_wait_goes_with_what_cannot_and_in_order():
    reading, writing = os.pipe()
    out = Outbox()
    out.keep(FrameType.OUTPUT, b"x", urgent=False)
    assert not out.urgent
    out.keep(FrameType.RESULT, b"1")
    assert out.urgent
    out.write(writing)
    assert not out
    assert not out.urgent
    marker = bytes(16)
    frames = FrameReader(marker, restarts=False).feed(marker + os.read(reading, 1000))
    assert [(frame.number, frame.body) for frame in frames] == [(0, b"x"), (1, b"1")]
    os.close(reading)
    os.close(writing)


def test_what_is_gathered_waits_a_little_and_what_is_urgent_takes_it_along():
    reading, writing = os.pipe()
    out = Outbox()
    assert not out.is_due
    began = time.monotonic()
    out.gather()
    out.keep(FrameType.OUTPUT, b"x", urgent=False)
    first = out.write_at
    assert first > began
    out.gather()  # there is something already: it does not wait for longer
    assert out.write_at == first
    out.keep(FrameType.RESULT, b"1")
    assert out.is_due
    out.write(writing)
    assert not out.is_due
    os.close(reading)
    os.close(writing)


def test_what_is_left_of_a_write_is_urgent():
    reading, writing = os.pipe2(os.O_NONBLOCK)
    out = Outbox()
    out.keep(FrameType.OUTPUT, bytes(200_000), urgent=False)
    out.write(writing)
    assert out.urgent
    os.close(reading)
    os.close(writing)
