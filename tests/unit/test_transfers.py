"""What `scripts/transfer` is asked for: sizes, and as many machines as have room for them."""

from __future__ import annotations

import pytest
from tests.support.transfers import HOME_BYTES, MEBIBYTE, plan, size_of


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_of(text) for text in ("1", "64M", "1g")] == [1, 64 * MEBIBYTE, 1 << 30]
    with pytest.raises(ValueError, match="is no number of bytes"):
        size_of("much")


@pytest.mark.parametrize(("total", "streams"), [(1 << 30, 500), (64 * MEBIBYTE, 50), (64 * MEBIBYTE, 1), (1, 3)])
def test_each_machine_has_room_for_the_files_that_are_put_into_it(total: int, streams: int) -> None:
    asked = plan(total, streams)
    fullest = -(-streams // asked.machines)
    assert fullest * asked.file_bytes <= HOME_BYTES
    assert asked.streams == streams
    assert asked.moved_bytes == 2 * streams * asked.file_bytes


def test_what_no_machine_has_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="more streams"):
        plan(1 << 30, 1)
