"""Frames survive any cut; what is damaged, foreign or abandoned never becomes one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torpor_worker.guest import frames
from torpor_worker.guest.frames import FrameReader, ProtocolError, encode

MARKER = bytes(range(240, 256))
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.integers(-1, 2**62), st.binary(max_size=200)), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(FRAMES, st.lists(st.integers(0, 5000), max_size=12), st.binary(max_size=100))
def test_frames_arrive_whole_however_the_stream_is_cut(
    sent: list[tuple[int, int, bytes]], places: list[int], before: bytes
) -> None:
    reader = FrameReader(MARKER, restarts=False)
    stream = before + MARKER + b"".join(encode(*frame) for frame in sent)
    received = [frame for piece in cut(stream, places) for frame in reader.feed(piece)]
    assert [tuple(frame) for frame in received] == sent


@given(st.integers(0, 249), st.lists(st.integers(0, 5000), max_size=8))
@example(length=240, places=[frames.HEADER.size + 240 + 16 + 12])  # the marker's first bytes make it as long as a frame
def test_a_half_frame_is_abandoned_when_the_marker_comes(length: int, places: list[int]) -> None:
    reader = FrameReader(MARKER, restarts=True)
    half = encode(1, 7, b"x" * 250)[: frames.HEADER.size + length]
    stream = MARKER + half + MARKER + encode(2, 8, b"whole")
    received = [frame for piece in cut(stream, places) for frame in reader.feed(piece)]
    assert [tuple(frame) for frame in received if frame.type == 2] == [(2, 8, b"whole")]
    assert all(frame.type == 2 for frame in received)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_a_damaged_byte_never_gives_a_different_frame(place: int, change: int) -> None:
    whole = bytearray(encode(3, 9, b"the body of a frame"))
    whole[place % len(whole)] ^= change
    reader = FrameReader(MARKER, restarts=False)
    try:
        received = reader.feed(MARKER + bytes(whole))
    except ProtocolError:
        received = []
    assert received == []


def test_a_frame_longer_than_the_limit_is_refused_before_its_body_is_read() -> None:
    reader = FrameReader(MARKER, restarts=False)
    header = frames.HEADER.pack(frames.MAGIC, frames.PROTOCOL_VERSION, 1, frames.BODY_LIMIT_BYTES + 1, 0, 0)
    with pytest.raises(ProtocolError):
        reader.feed(MARKER + header)


def test_after_a_protocol_error_the_next_marker_starts_afresh() -> None:
    reader = FrameReader(MARKER, restarts=True)
    with pytest.raises(ProtocolError):
        reader.feed(MARKER + b"\0" * 64)
    assert reader.feed(encode(1, 1, b"lost")) == []
    assert [frame.body for frame in reader.feed(MARKER + encode(1, 1, b"heard"))] == [b"heard"]
