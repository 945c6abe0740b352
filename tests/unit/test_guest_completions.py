"""Completions wait for nothing, and nothing waits for them for long; the guest as plain processes of this host."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.conversations import Conversation
from tests.support.host_guests import attached, host_guest

from torpor_worker.guest_link import GuestLink
from torpor_worker.sandbox import Completion


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[GuestLink]:
    async with host_guest(tmp_path) as fifos:
        link = await attached(fifos, new=True)
        yield link
        await link.close()


async def test_while_an_instruction_runs_there_is_none_and_after_it_there_is(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.say("number = 3\nprint('it runs')\nimport time\ntime.sleep(0.5)\n'whole'")
    await talk.hear(until="it runs\n")
    assert await link.complete("numb", 4) == Completion((), 4, 4)
    assert (await talk.hear()).value == "'whole'"
    assert await link.complete("numb", 4) == Completion(("number",), 0, 4)


async def test_one_that_takes_long_is_interrupted(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run("class Slow:\n    def __dir__(self):\n        import time; time.sleep(60)\nslow = Slow()")
    assert (await link.complete("slow.", 5)).matches == ()
    assert (await talk.run("6 * 7")).value == "42"


STUBBORN = """
import pathlib, time
class Stubborn:
    def __dir__(self):
        ends = time.monotonic() + 4.5
        while time.monotonic() < ends:
            try:
                time.sleep(0.1)
            except BaseException:
                pass
        pathlib.Path({path!r}).touch()
        return []
stubborn = Stubborn()
"""


async def test_one_that_is_not_interrupted_is_given_up_and_an_instruction_comes_in_its_turn(
    link: GuestLink, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    talk = Conversation(link)
    await talk.run(STUBBORN.format(path=str(ended)))
    assert (await link.complete("stubborn.", 9)).matches == ()
    assert not ended.exists()
    assert (await talk.run("6 * 7")).value == "42"
    assert ended.exists()
