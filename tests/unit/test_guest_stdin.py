"""What instructions read: lines that came with them, or that come later; the guest as processes of this host."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.conversations import Answer, Conversation
from tests.support.host_guests import attached, host_guest

from torpor_worker.guest.stdin import REQUEST
from torpor_worker.guest_code import GuestCode, own_code
from torpor_worker.guest_link import GuestLink
from torpor_worker.stdin import Stdin

OTHER = GuestCode(own_code().modules | {"supervisor": own_code().modules["supervisor"] + "\n# other code\n"})
ASK = "name = input('Name? ')"


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[GuestLink]:
    async with host_guest(tmp_path) as fifos:
        link = await attached(fifos, new=True)
        yield link
        await link.close()


@pytest.fixture
def talk(link: GuestLink) -> Conversation:
    return Conversation(link)


async def asked(talk: Conversation) -> tuple[Answer, dict[str, Any]]:
    """What comes until somebody asks, and what is asked."""
    answer = Answer()
    while not any(REQUEST in each for each in answer.displays):
        event = await talk.partner.receive()
        answer.outputs.append(event)  # type: ignore[arg-type]  # the tests here hear nothing else before
        await talk.partner.acknowledge()
    return answer, answer.displays[-1][REQUEST]


async def test_input_reads_lines_in_order_and_then_meets_the_end(talk: Conversation) -> None:
    code = "a, b = input('a? '), input()\ntry:\n    input()\nexcept EOFError as error:\n    print(error)\na, b"
    answer = await talk.run(code, "one\ntwo")
    assert answer.value == "('one', 'two')"
    assert answer.text() == "a? input() got no answer: all of `stdin` has been read.\n"


async def test_nobody_answers_an_instruction_without_stdin(talk: Conversation) -> None:
    await talk.run("1", "left\n" * 10)
    error = (await talk.run("print('before')\ninput('x? ')")).error
    assert error["name"] == "EOFError"
    assert "nobody is at this machine's keyboard. Give its lines with the code, as `stdin`" in error["message"]


READERS = {
    "sys.stdin.readline()": "'one\\n'",
    "sys.stdin.read()": "'one\\ntwo\\n'",
    "list(sys.stdin)": "['one\\n', 'two\\n']",
    "sys.stdin.buffer.read(5)": "b'one\\nt'",
    "os.read(0, 100)": "b'one\\ntwo\\n'",
    "getpass.getpass()": "'one'",
    "subprocess.run('head -n 1', shell=True, capture_output=True).stdout": "b'one\\n'",
    "(sys.stdin.isatty(), sys.stdin.fileno(), sys.stdin.closed)": "(False, 0, False)",
    "asyncio.run(asyncio.to_thread(input))": "'one'",
}


@pytest.mark.parametrize("reader", READERS)
async def test_whatever_reads_reads_the_same(talk: Conversation, reader: str) -> None:
    await talk.run("import asyncio, getpass, os, subprocess, sys\nfrom sys import stdin")
    await talk.run("input()", "left from before\nand more")
    assert (await talk.run(reader, "one\ntwo\n")).value == READERS[reader]
    assert (await talk.run("stdin.read(), os.read(0, 1)")).value == "('', b'')"


async def test_what_one_instruction_leaves_the_next_does_not_read(talk: Conversation) -> None:
    await talk.run("import sys\nsys.stdin.readline()", "one\nleft\n")
    assert (await talk.run("sys.stdin.readline(), sys.stdin.read()", "two\n")).value == "('two\\n', '')"
    await talk.run("for line in sys.stdin:\n    break", "three\nleft\n")
    assert (await talk.run("sys.stdin.read()")).value == "''"


async def test_a_closed_or_broken_stdin_is_mended(talk: Conversation) -> None:
    for harm in ("sys.stdin.close()", "sys.stdin.buffer.close()", "sys.stdin.detach()", "os.close(0)"):
        await talk.run(f"import os, sys\nsys.stdin.readline()\n{harm}", "one\nleft\n")
        assert (await talk.run("input()", "two\n")).value == "'two'", harm
    await talk.run("sys.stdin = None")
    mended = await talk.run("input()", "three\n")
    assert mended.value == "'three'"
    assert [notice.code for notice in mended.notices] == ["guest_repaired"]


async def test_a_stdin_of_the_users_own_is_read(talk: Conversation) -> None:
    await talk.run("import io, sys\nsys.stdin = io.StringIO('mine\\n')")
    assert (await talk.run("input()")).value == "'mine'"
    assert (await talk.run("input()")).error["message"] == "EOF when reading a line"


async def test_a_megabyte_is_read(talk: Conversation) -> None:
    assert (await talk.run("import sys\nlen(sys.stdin.read())", "ü" * (1 << 19))).value == str(1 << 19)


async def test_an_answer_may_come_when_it_is_asked_for(talk: Conversation) -> None:
    seq = await talk.say(
        f"{ASK}\nimport getpass\nsecret = getpass.getpass('Key? ')\nname, secret", Stdin("", open=True)
    )
    before, question = await asked(talk)
    assert (before.text(), question) == ("Name? ", {"prompt": "Name? ", "password": False, "read_bytes": 0})
    await talk.feed(seq, "Ada\n")
    before, question = await asked(talk)
    assert (before.text("stderr"), question) == ("Key? ", {"prompt": "Key? ", "password": True, "read_bytes": 4})
    await talk.feed(seq, "se")
    await talk.feed(seq, "cret\n")
    assert (await talk.hear()).value == "('Ada', 'secret')"


async def test_children_do_not_wait_where_nobody_would_know(talk: Conversation) -> None:
    code = (
        "import os, subprocess\nsubprocess.run(['cat'], check=True, capture_output=True).stdout, os.read(0, 1), input()"
    )
    seq = await talk.say(code, Stdin("", open=True))
    await asked(talk)
    await talk.feed(seq, "mine\n")
    assert (await talk.hear()).value == "(b'', b'', 'mine')"


async def test_code_that_closes_what_is_not_its_own_reads_nothing_more_and_the_next_reads(talk: Conversation) -> None:
    seq = await talk.say("import os\nos.closerange(3, 4096)\ninput()", Stdin("one\n", open=True))
    assert (await talk.hear()).error["name"] == "OSError"
    await talk.feed(seq, "two\n")
    assert (await talk.run("input()", "three\n")).value == "'three'"
    seq = await talk.say("input()", Stdin("four\n", open=True))
    assert (await talk.hear()).value == "'four'"


async def test_nothing_is_asked_for_that_is_there(talk: Conversation) -> None:
    """A client that answers each question would answer one too many."""
    seq = await talk.say("input(), input(), input()", Stdin("one\ntwo\n", open=True))
    before, _ = await asked(talk)
    assert len(before.displays) == 1
    await talk.feed(seq, "three\n")
    answer = await talk.hear()
    assert (answer.value, answer.displays) == ("('one', 'two', 'three')", [])


async def test_an_end_may_come_and_nothing_after_it(talk: Conversation) -> None:
    seq = await talk.say("import sys\nsys.stdin.read()", Stdin("a", open=True))
    await asked(talk)
    await talk.feed(seq, "b", close=True)
    await talk.feed(seq, "c")
    assert (await talk.hear()).value == "'ab'"


async def test_more_than_a_pipe_holds_is_read(talk: Conversation) -> None:
    seq = await talk.say("import sys, time\ntime.sleep(0.2)\nlen(sys.stdin.read())", Stdin("x" * 300_000, open=True))
    await talk.feed(seq, "y" * 300_000, close=True)
    assert (await talk.hear()).value == "600000"


async def test_one_who_waits_can_be_interrupted_and_his_answer_is_nobodys(talk: Conversation) -> None:
    seq = await talk.say(ASK, Stdin("", open=True))
    await asked(talk)
    await talk.partner.interrupt(seq, step="interrupt")
    assert (await talk.hear()).error["name"] == "KeyboardInterrupt"
    await talk.feed(seq, "late\n")
    assert (await talk.run("input()")).error["name"] == "EOFError"
    assert (await talk.run("input()", "mine\n")).value == "'mine'"


async def test_a_thread_that_waits_for_an_answer_meets_the_end_with_its_instruction(talk: Conversation) -> None:
    code = "import threading\ngot = []\ndef read():\n    import sys\n    got.append(sys.stdin.readline())\n"
    seq = await talk.say(f"{code}thread = threading.Thread(target=read)\nthread.start()", Stdin("", open=True))
    assert (await talk.hear()).value is None
    await talk.feed(seq, "late\n")
    assert (await talk.run("thread.join(10)\ngot", "two\n")).value == "['']"


async def test_one_who_waits_is_answered_after_the_supervisor_was_replaced(talk: Conversation, link: GuestLink) -> None:
    seq = await talk.say(f"{ASK}\nname", Stdin("", open=True))
    await asked(talk)
    assert await link.upgrade(OTHER) is None
    await talk.feed(seq, "Ada\n")
    assert (await talk.hear()).value == "'Ada'"
    assert await link.upgrade(own_code()) is None
    assert (await talk.run("input()", "x")).value == "'x'"


async def test_input_of_a_position_that_was_seen_is_not_read_twice(talk: Conversation) -> None:
    seq = await talk.say("input(), input()", Stdin("", open=True))
    await asked(talk)
    await talk.feed(seq, "one\n")
    talk.position -= 1
    await talk.feed(seq, "one\n")
    await talk.feed(seq, "two\n")
    assert (await talk.hear()).value == "('one', 'two')"


async def test_an_interpreter_of_before_says_that_it_cannot_read(tmp_path: Path) -> None:
    modules = own_code().modules
    old = GuestCode(modules | {"channel": modules["channel"].replace("VERSION = ", "VERSION = 2  # ")})
    async with host_guest(tmp_path) as fifos:
        link = GuestLink(*fifos)
        await link.open()
        await link.load(code=old)
        await link.attach(60)
        answer = await Conversation(link).run("input()", "one\n")
        assert answer.error["name"] == "EOFError"
        assert [notice.code for notice in answer.notices] == ["no_stdin"]
        await link.close()


LINES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_first=LINES, later=LINES, cuts=st.lists(st.integers(0, 400), max_size=5), is_open=st.booleans())
async def test_lines_arrive_as_they_were_sent_however_they_are_cut(
    talk: Conversation, given_first: list[str], later: list[str], cuts: list[int], is_open: bool
) -> None:
    first, more = "".join(f"{line}\n" for line in given_first), "".join(f"{line}\n" for line in later)
    seq = await talk.say("import sys\n[line.removesuffix('\\n') for line in sys.stdin]", Stdin(first, open=is_open))
    if is_open:
        edges = sorted({0, len(more), *(cut for cut in cuts if cut < len(more))})
        for start, end in itertools.pairwise(edges):
            await talk.feed(seq, more[start:end])
            await asyncio.sleep(0)
        await talk.feed(seq, "", close=True)
    assert (await talk.hear()).value == repr(given_first + (later if is_open else []))
