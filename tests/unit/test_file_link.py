"""What a guest says of files is not believed, and nothing is said to it while it is held."""

import asyncio
import json

import pytest

from torpor_worker.file_link import FileLink
from torpor_worker.files import Look
from torpor_worker.guest.frames import FrameType
from torpor_worker.sandbox import SandboxDied

ABOUT = {
    "kind": "file",
    "size": 3,
    "mode": 0o644,
    "modified_ns": 1_700_000_000_000_000_000,
    "tag": "1-3-17979cfe362a0000",
}


class Pipe:
    """What was said to the guest."""

    def __init__(self) -> None:
        self.said: list[FrameType] = []

    async def send(self, kind: FrameType, number: int, body: bytes) -> None:
        """Say it."""
        self.said.append(kind)


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def link(pipe: Pipe) -> FileLink:
    link = FileLink(pipe.send)
    link.begin(known=True)
    return link


async def test_a_look_is_answered(link: FileLink) -> None:
    transfer = await link.open(Look("a"))
    link.take(FrameType.FILE_ENDED, transfer.number, json.dumps(ABOUT | {"sha256": "0" * 64, "more": 1}).encode())
    assert await transfer.ended() == ABOUT | {"sha256": "0" * 64}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "file\r\nSet-Cookie: a=b"},
        {"tag": "1\r\n"},
        {"tag": "\u20ac"},
        {"mode": "x"},
        {"size": -1},
        {"modified_ns": 1 << 80},
        {"sha256": "0\n"},
        {"error": {}},
    ],
)
async def test_an_answer_that_is_none_is_no_answer_and_nobody_waits_for_another(
    link: FileLink, wrong: dict[str, object]
) -> None:
    transfer = await link.open(Look("a"))
    with pytest.raises((ValueError, KeyError)):
        link.take(FrameType.FILE_ENDED, transfer.number, json.dumps(ABOUT | wrong).encode())
    link.lose("it broke the protocol")
    with pytest.raises(SandboxDied):
        await transfer.ended()


async def test_what_waits_while_it_is_held_does_not_slip_between_two_holds(link: FileLink, pipe: Pipe) -> None:
    await link.hold()
    opening = asyncio.create_task(link.open(Look("a")))
    await asyncio.sleep(0)
    link.go_on()
    await link.hold()
    await asyncio.sleep(0.01)
    assert pipe.said == []
    link.go_on()
    await opening
    assert pipe.said == [FrameType.FILE_OPEN]
