"""Lists of folders that a machine makes up."""

import json
from collections.abc import AsyncIterator

import pytest

from torpor_api.file_lists import said, told
from torpor_worker.files import FileRefused

FIELDS = {"name": "a", "kind": "file", "size": 1, "mode": 0o644, "modified_ns": 0}


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * (1 << 20)


async def test_a_list_without_end_fills_no_memory() -> None:
    with pytest.raises(FileRefused, match="too long"):
        await said(_endless(), 10)


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"5", b"[" * 100_000, b"{}"]
    + [
        json.dumps(FIELDS | more).encode()
        for more in (
            {"modified_ns": 10**40},
            {"name": "\ud800"},
            {"size": "x"},
            {"kind": "planet"},
            {"mode": None},
            {"size": float("inf")},
        )
    ],
)
async def test_what_is_no_list_is_refused(line: bytes) -> None:
    with pytest.raises(FileRefused, match="no list"):
        await said(_pieces(line), 10)


async def test_no_more_entries_are_told_than_were_asked_for() -> None:
    line = json.dumps(FIELDS | {"mode": -1, "target": "b"}).encode() + b"\n"
    [entry, _] = await said(_pieces(line * 5), 2)
    assert told("sub", entry) == {
        "name": "a",
        "path": "sub%2Fa",
        "kind": "file",
        "size": 1,
        "mode": "7777",
        "modified": "1970-01-01T00:00:00Z",
        "target": "b",
    }
