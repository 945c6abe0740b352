"""The guest's supervisor makes way for other code and keeps what it had; the guest as plain processes of this host."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.support.commands import Talk
from tests.support.conversations import Conversation
from tests.support.host_guests import attached, host_guest
from tests.support.house import until

from torpor_worker.command import Terminal
from torpor_worker.guest_code import GuestCode, guest_command, own_code
from torpor_worker.guest_link import GuestLink

OTHER = GuestCode(own_code().modules | {"supervisor": own_code().modules["supervisor"] + "\n# other code\n"})
BROKEN = {
    "does not compile": OTHER.modules | {"supervisor": "def main(:"},
    "does not import": OTHER.modules | {"supervisor": "import torpor_guest.nothing"},
    "does not know the format": OTHER.modules
    | {"handover": own_code().modules["handover"].replace("FORMAT = 1", "FORMAT = 0")},
    "cannot talk with the interpreter": OTHER.modules
    | {"channel": own_code().modules["channel"].replace("SPOKEN = ", "SPOKEN = frozenset({99})  # ")},
}


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[GuestLink]:
    async with host_guest(tmp_path) as fifos:
        link = await attached(fifos, new=True)
        yield link
        await link.close()


async def _is_free(link: GuestLink) -> bool:
    return (await link.ping()).running is None


async def test_a_successor_has_the_variables_positions_and_output_of_its_predecessor(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run("a = 3")
    await link.execute(1, 1, "print('kept', flush=True)\na + 5", replaying=False)
    await until(lambda: _is_free(link))
    assert link.code == own_code().sha256
    assert await link.upgrade(OTHER) is None
    assert link.code == OTHER.sha256
    answer = await talk.hear()
    assert (answer.text(), answer.value) == ("kept\n", "8")
    assert (await link.ping()).last_position == 1
    talk.position = 2
    assert (await talk.run("import os\nos.write(1, b'piped\\n')\na")).text() == "piped\n"
    assert await link.upgrade(own_code()) is None
    assert (await talk.run("a")).value == "3"


async def test_an_instruction_runs_on_while_its_supervisor_is_replaced(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.say("import time\nfor i in range(100):\n    print(i, flush=True)\n    time.sleep(0.01)\n'done'")
    await talk.hear(until="9\n")
    assert await link.upgrade(OTHER) is None
    answer = await talk.hear()
    assert answer.text().splitlines()[-1] == "99"
    assert answer.value == "'done'"
    assert [output.offset for output in answer.outputs] == sorted({output.offset or 0 for output in answer.outputs})
    assert (await talk.interrupted("while True: pass")).error["name"] == "KeyboardInterrupt"


@pytest.mark.parametrize("how", BROKEN)
async def test_a_successor_that_is_of_no_use_leaves_the_old_one_running(link: GuestLink, how: str) -> None:
    talk = Conversation(link)
    await talk.run("a = 3")
    assert await link.upgrade(GuestCode(BROKEN[how])) is not None
    assert link.code == own_code().sha256
    assert (await talk.run("a + 5")).value == "8"


async def test_an_interpreter_that_ends_is_reported_by_the_successor(link: GuestLink) -> None:
    talk = Conversation(link)
    assert await link.upgrade(OTHER) is None
    assert (await talk.run("import os\nos._exit(3)")).death == "exit status 3"


async def test_a_successor_rests_when_the_interpreter_has_ended_before(link: GuestLink) -> None:
    assert (await Conversation(link).run("import os\nos._exit(3)")).death == "exit status 3"
    assert await link.upgrade(OTHER) is None
    command = list(guest_command(sys.executable))
    guest = next(child for child in psutil.Process().children() if child.cmdline()[1:] == command[1:])
    await asyncio.sleep(0.2)
    before = guest.num_ctx_switches().voluntary
    await asyncio.sleep(0.5)
    assert guest.num_ctx_switches().voluntary < before + 20


async def test_commands_go_on_while_their_supervisor_is_replaced(link: GuestLink) -> None:
    talk = Talk(link)
    count = await talk.send("for i in $(seq 200); do echo $i; sleep 0.01; done; exit 5")
    fed = await talk.send("while read line; do echo got $line; done; echo end >&2", stdin_open=True)
    shell = await talk.send("read line; echo $line; stty size", terminal=Terminal(11, 22), stdin_open=True)
    left = await talk.send("(sleep 1; echo later) & echo now")
    await talk.feed(fed, b"one\n")
    await talk.until(fed, b"got one\n")
    await talk.until(count, b"20\n")
    await talk.end(left)
    assert await link.upgrade(OTHER) is None
    await talk.feed(fed, b"two\n", close=True)
    await talk.feed(shell, b"typed\n")
    for seq, code in ((count, 5), (fed, 0), (shell, 0)):
        assert (await talk.end(seq)).exit_code == code
    await talk.until(left, b"later\n")

    assert talk.bytes(count) == b"".join(b"%d\n" % number for number in range(1, 201))
    assert (talk.bytes(fed), talk.bytes(fed, "stderr")) == (b"got one\ngot two\n", b"end\n")
    assert talk.bytes(shell).endswith(b"typed\r\n11 22\r\n")
    for said in talk.said.values():
        assert [each.offset for each in said] == [0, *(each.end for each in said[:-1])]


async def test_code_that_would_let_go_of_commands_is_refused(link: GuestLink) -> None:
    talk = Talk(link)
    seq = await talk.send("read line; echo $line", stdin_open=True)
    earlier = own_code().modules["handover"].replace("FORMAT_WITH_COMMANDS = 2", "FORMAT_WITH_COMMANDS = 1")
    problem = await link.upgrade(GuestCode(own_code().modules | {"handover": earlier}))
    await talk.feed(seq, b"still here\n")
    await talk.end(seq)

    assert problem is not None
    assert "format 2" in problem
    assert talk.bytes(seq) == b"still here\n"
