"""Guests of other code than today's, in images of theirs, under today's worker."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.commands import Talk
from tests.support.conversations import Conversation
from tests.support.sandboxes import LIMITS

from torpor_snapshotter.runtime import Runtime
from torpor_worker.guest_code import GuestCode, own_code
from torpor_worker.gvisor import GVisorHost

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> GuestCode:
    return GuestCode(json.loads(gzip.decompress((GOLDEN / name).read_bytes()))["modules"])


EARLIER = [golden(f"guest-{version}.json.gz") for version in (1, 2, 3)]
"""The guest of the first snapshots, which cannot be replaced; the first that can; one with files and commands."""
OTHER = GuestCode(own_code().modules | {"supervisor": own_code().modules["supervisor"] + "\n# other code\n"})
BROKEN = GuestCode(own_code().modules | {"supervisor": "def main(:"})
COUNTING = """
import subprocess, threading, time
a, ticks = 3, 0
def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1
threading.Thread(target=tick, daemon=True).start()
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
"""
STILL_THERE = """
before = ticks
while ticks == before:
    time.sleep(0.01)
child.stdin.write(b"%d\\n" % a)
child.stdin.flush()
a += 1
int(child.stdout.readline())
"""


@asynccontextmanager
async def hosting(runtime: Runtime, folder: Path, guest: GuestCode | None = None) -> AsyncIterator[GVisorHost]:
    host = GVisorHost(runtime, folder, guest=guest)
    try:
        yield host
    finally:
        await host.close()


@pytest.fixture
async def images(runtime: Runtime, folder: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with an image of a machine at position 0 of the guest that is the test's parameter."""
    async with hosting(runtime, folder / "earlier", request.param) as host:
        sandbox = await host.start("old", LIMITS)
        assert (await Conversation(sandbox).run(COUNTING)).value is None
        await sandbox.checkpoint(folder / "0")
    return folder


@pytest.mark.parametrize("images", [OTHER], indirect=True)
async def test_a_guest_of_other_code_is_replaced_on_waking_and_the_machine_lives_on(host: GVisorHost, images: Path):
    for turn in range(2):
        woken, state = await host.restore("m", images / str(turn), LIMITS)
        assert state.last_position == turn
        assert woken.guest_sha256 == own_code().sha256
        assert (await Conversation(woken, turn + 1).run(STILL_THERE)).value == str(3 + turn)
        await woken.checkpoint(images / str(turn + 1))
        await woken.destroy()


@pytest.mark.parametrize("images", [OTHER], indirect=True)
async def test_a_guest_that_cannot_be_replaced_goes_on_as_it_was(runtime: Runtime, images: Path):
    async with hosting(runtime, images / "sandboxes", BROKEN) as host:
        woken, _ = await host.restore("m", images / "0", LIMITS)
        assert woken.guest_sha256 == OTHER.sha256
        assert (await Conversation(woken, 1).run(STILL_THERE)).value == "3"


@pytest.mark.parametrize("images", EARLIER, ids=["guest 1", "guest 2", "guest 3"], indirect=True)
async def test_an_earlier_guest_still_speaks_with_todays_worker(host: GVisorHost, images: Path):
    woken, _ = await host.restore("m", images / "0", LIMITS)
    assert woken.guest_sha256 in (None, own_code().sha256)
    talk = Conversation(woken, 1)
    assert (await talk.run(STILL_THERE)).value == "3"
    answer = await talk.run("print('said')\nimport sys\nprint('wrongly', file=sys.stderr)\n1 / 0")
    assert (answer.text(), answer.text("stderr")) == ("said\n", "wrongly\n")
    assert answer.error["name"] == "ZeroDivisionError"
    assert (await talk.interrupted("while True: pass")).error["name"] == "KeyboardInterrupt"
    await woken.reseed(talk.position, bytes(32))
    talk.position += 1
    assert (await talk.run("import torpor\ntorpor.seq()")).value == str(talk.position - 1)
    if (await woken.ping()).commands is not None:  # what cannot be replaced is sent none
        commands = Talk(woken, first=talk.position)
        assert (await commands.run("echo $HOME; exit 3")).exit_code == 3
        assert commands.bytes(talk.position) == b"/home/user\n"
        talk.position += 1
    else:
        assert woken.guest_sha256 is None
    await woken.checkpoint(images / "1")
    again, state = await host.restore("again", images / "1", LIMITS)
    assert state.last_position == talk.position - 1
    talk = Conversation(again, talk.position)
    assert (await talk.run(STILL_THERE)).value == "4"
    await talk.run("import os\nos.closerange(0, 65536)")  # it asks for another connection
    assert (await talk.run("print('heard')")).text() == "heard\n"
    assert (await talk.run("os._exit(3)")).death == "exit status 3"
