"""Both ends of the conversation, the guest running as plain processes of this host."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.conversations import Conversation
from tests.support.host_guests import attached, host_guest

from torpor_worker.guest import frames
from torpor_worker.guest.frames import FrameType
from torpor_worker.guest_link import GuestLink
from torpor_worker.pace import AT_ONCE_SECONDS, SHARE
from torpor_worker.sandbox import Output, Result, SandboxDied, SandboxError, SandboxLost

STATE = {"last_position": -1, "running": None, "background": False, "ready": True}
ENDED = {"seq": 0, "exit_code": 0, "signal": None, "runtime_ms": 1, "reason": None}
FAR = 2**64 - 1
NO_NUMBERS = {  # for which no ledger has room
    "result": frames.encode(FrameType.RESULT, 0, frames.RESULT.pack(0) + b'{"runtime_ms": %d}' % FAR),
    "ended": frames.encode(FrameType.COMMAND_ENDED, 0, json.dumps(ENDED | {"seq": FAR}).encode()),
    "time": frames.encode(FrameType.COMMAND_ENDED, 0, json.dumps(ENDED | {"runtime_ms": FAR}).encode()),
    "died": frames.encode(FrameType.DIED, 0, json.dumps({"seq": FAR, "reason": "x"}).encode()),
    "offset": frames.encode(
        FrameType.OUTPUT, 0, frames.OUTPUT.pack(0, 0, frames.HAS_OFFSET) + frames.OFFSET.pack(FAR) + b"x"
    ),
    "skipped": frames.encode(
        FrameType.COMMAND_OUTPUT,
        0,
        frames.OUTPUT.pack(0, 0, frames.HAS_OFFSET | frames.SKIPPED) + frames.OFFSET.pack(0) + frames.OFFSET.pack(FAR),
    ),
    "asker": frames.encode(
        FrameType.PACKAGES_WANTED, 1, json.dumps({"seq": FAR, "name": "0-0123456789abcdef-0", "request": {}}).encode()
    ),
}
ASK = {"seq": 0, "name": "0-0123456789abcdef-0"}


@pytest.fixture
async def fifos(tmp_path: Path) -> AsyncIterator[tuple[Path, Path]]:
    async with host_guest(tmp_path) as fifos:
        yield fifos


@pytest.fixture
async def link(fifos: tuple[Path, Path]) -> AsyncIterator[GuestLink]:
    link = await attached(fifos, new=True)
    yield link
    await link.close()


async def test_a_variable_outlives_its_instruction(link: GuestLink) -> None:
    talk = Conversation(link)
    assert (await talk.run("a = 3")).value is None
    assert (await talk.run("a + 5")).value == "8"


async def test_output_comes_in_order_before_the_result(link: GuestLink) -> None:
    code = (
        "import os, sys\nprint('one')\nos.system('echo two')\nprint('three')\n"
        "print('and', file=sys.stderr)\nos.write(1, b'four\\n')"
    )
    answer = await Conversation(link).run(code)
    assert answer.text() == "one\ntwo\nthree\nfour\n"
    assert answer.text("stderr") == "and\n"
    assert not any(output.background for output in answer.outputs)


async def test_an_error_shows_the_users_own_lines_and_no_others(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run("def divide(x):\n    return x / 0")
    error = (await talk.run("divide(1)")).error
    assert error["name"] == "ZeroDivisionError"
    assert error["message"] == "division by zero"
    assert [line.strip() for line in error["traceback"] if "File" in line] == [
        'File "<cell 1>", line 1, in <module>',
        'File "<cell 0>", line 2, in divide',
    ]
    assert "    return x / 0" in error["traceback"]


async def test_a_loop_is_interrupted_and_the_next_instruction_answered(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run("a = 3")
    assert (await talk.interrupted("while True: pass")).error["name"] == "KeyboardInterrupt"
    assert (await talk.run("a")).value == "3"


async def test_an_interrupt_for_another_seq_changes_nothing(link: GuestLink) -> None:
    talk = Conversation(link)
    seq = await talk.say("import time\nprint('it runs')\ntime.sleep(0.3)\n'whole'")
    await talk.hear(until="it runs\n")
    await link.interrupt(seq + 1, step="interrupt")
    assert (await talk.hear()).value == "'whole'"


async def test_a_position_that_was_seen_is_not_executed_again(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run("n = 1")
    await talk.run("n += 1")
    await link.execute(1, 1, "n += 1", replaying=False)
    assert (await talk.run("n")).value == "2"


async def test_a_value_nested_too_deep_for_the_host_comes_as_its_repr_alone(link: GuestLink) -> None:
    code = (
        "class Deep:\n    def _repr_mimebundle_(self, **_):\n"
        "        nested = []\n        for _ in range(400):\n            nested = [nested]\n"
        "        return {'application/json': nested, 'text/html': '<b>'}\n"
        "    def __repr__(self):\n        return 'deep'\nDeep()"
    )
    ending = (await Conversation(link).run(code)).ending
    assert isinstance(ending, Result)
    assert (ending.value, ending.data) == ("deep", {"text/html": "<b>"})


async def test_a_second_link_hears_again_what_was_not_acknowledged(fifos: tuple[Path, Path]) -> None:
    first = await attached(fifos, new=True)
    await first.execute(0, 0, "print('kept')\n7", replaying=False)
    while not isinstance(await first.receive(), Result):
        pass
    await first.close()
    second = await attached(fifos, new=False)
    answer = await Conversation(second).hear()
    assert (answer.text(), answer.value) == ("kept\n", "7")
    await second.ping()  # the acknowledgement goes with it
    await second.close()
    third = await attached(fifos, new=False)
    state = await third.ping()
    assert (state.last_position, state.running) == (0, None)
    assert (await Conversation(third, position=1).run("1 + 1")).value == "2"
    await third.close()


async def test_an_attach_abandons_half_a_frame_of_an_earlier_host(fifos: tuple[Path, Path]) -> None:
    first = await attached(fifos, new=True)
    await first.close()
    whole = frames.encode(FrameType.EXECUTE, 0, json.dumps({"seq": 0, "code": "1" * 1000, "replaying": False}).encode())
    fd = os.open(fifos[0], os.O_RDWR)
    os.write(fd, whole[:500])
    os.close(fd)
    second = await attached(fifos, new=False)
    assert (await Conversation(second).run("40 + 2")).value == "42"
    await second.close()


async def test_after_its_own_fds_were_closed_beside_a_thread_the_next_instruction_is_answered(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run("import os, threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()")
    await talk.run("os.closerange(1000, 1100)")
    assert (await talk.run("print('heard')")).text() == "heard\n"


async def test_a_reader_that_does_not_acknowledge_stops_the_writer_and_loses_nothing(link: GuestLink) -> None:
    await link.execute(0, 0, "for i in range(400_000): print(i)", replaying=False)
    received = 0
    while True:
        try:
            event = await asyncio.wait_for(link.receive(), 2)
        except TimeoutError:
            break
        assert isinstance(event, Output)
        received += len(event.data)
    assert received < 3 << 20
    assert (await link.ping()).running == 0
    await link.acknowledge()
    answer = await Conversation(link).hear()
    assert received + len(answer.text()) == sum(len(f"{i}\n") for i in range(400_000))


@pytest.mark.parametrize(
    "said",
    [
        b"\0" * 100,
        frames.HEADER.pack(frames.MAGIC, frames.PROTOCOL_VERSION, 67, 2**31, 0, 0),
        frames.encode(99, 0, b""),
        frames.encode(FrameType.OUTPUT, 0, b"short"),
        frames.encode(FrameType.OUTPUT, 0, frames.OUTPUT.pack(0, 200, 0)),
        frames.encode(FrameType.RESULT, 0, frames.RESULT.pack(0) + b"[" * 100_000),
        frames.encode(FrameType.RESULT, 0, frames.RESULT.pack(0) + b'{"value": 1, "error": 2, "runtime_ms": "x"}'),
        frames.encode(FrameType.DIED, 0, b"\xff\xfe"),
        frames.encode(FrameType.PACKAGES_WANTED, 1, json.dumps(ASK | {"request": {"": "x" * 256 * 1024}}).encode()),
        *NO_NUMBERS.values(),
        frames.encode(FrameType.NOTICE, 0, json.dumps({"code": "\ud800", "message": "x"}).encode()),
    ],
    ids=["noise", "length", "type", "short", "kind", "depth", "fields", "text", "ask", *NO_NUMBERS, "code"],
)
async def test_what_breaks_the_protocol_is_the_end_of_the_sandbox(tmp_path: Path, said: bytes) -> None:
    async with _spoken_for(tmp_path) as (link, stdout):
        await asyncio.to_thread(os.write, stdout, said)
        async with asyncio.timeout(30):
            assert isinstance(await link.receive(), SandboxLost)
        with pytest.raises(SandboxDied):
            await link.receive()
        with pytest.raises(SandboxDied):
            await link.ping()


async def test_a_notice_of_any_length_is_cut_and_costs_nothing(link: GuestLink) -> None:
    talk = Conversation(link)
    await talk.run(
        "import random\nclass Bad:\n"
        "    def seed(self, _):\n        raise ValueError('ä' * 20_000)\n"
        "random._inst = Bad()"
    )
    await link.reseed(talk.position, b"0" * 32)
    talk.position += 1
    answer = await talk.run("5")
    assert answer.value == "5"
    [notice] = answer.notices
    assert notice.code == "guest_repaired"
    assert notice.message.startswith("Fresh randomness could not be given to every generator: ValueError: ää")
    assert len(notice.message) == 2000


async def test_a_guest_that_keeps_the_host_busy_is_heard_less_and_then_goes_on(tmp_path: Path) -> None:
    costly = frames.encode(FrameType.PONG, -1, json.dumps({"id": 1, "more": [[]] * 100_000} | STATE).encode())
    last = frames.encode(FrameType.OUTPUT, 0, frames.OUTPUT.pack(0, 0, 0) + b"last")
    async with _spoken_for(tmp_path) as (link, stdout):
        began, work_began = time.monotonic(), time.thread_time()
        writing = asyncio.create_task(asyncio.to_thread(_write_all, stdout, costly * 12 + last))
        async with asyncio.timeout(30):
            assert await link.receive() == Output(0, "stdout", b"last", background=False)
        await writing
        work = time.thread_time() - work_began
        assert work > 2 * AT_ONCE_SECONDS  # else this proves nothing
        # Others' work in this thread counts here, so there is some room.
        assert time.monotonic() - began > (work - AT_ONCE_SECONDS) / (2 * SHARE)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


@asynccontextmanager
async def _spoken_for(folder: Path) -> AsyncIterator[tuple[GuestLink, int]]:
    """A link that is attached to a guest that is none, and where to write what that says."""
    fifos = folder / "stdin", folder / "stdout"
    for fifo in fifos:
        os.mkfifo(fifo)
    link = GuestLink(*fifos)
    await link.open()
    attaching = asyncio.create_task(link.attach(30))
    stdin, stdout = (os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in fifos)
    greeting = b""
    while b'"nonce"' not in greeting:
        await asyncio.sleep(0.01)
        try:
            greeting += os.read(stdin, 65536)
        except BlockingIOError:
            continue
    nonce = bytes.fromhex(json.loads(greeting[greeting.index(b'{"nonce"') :])["nonce"])
    os.write(stdout, b"stale" + nonce + frames.encode(FrameType.STATE, -1, json.dumps(STATE).encode()))
    await attaching
    os.set_blocking(stdout, True)
    yield link, stdout
    await link.close()
    os.close(stdin)
    os.close(stdout)


async def test_a_guest_that_never_answers_is_an_error(tmp_path: Path) -> None:
    fifos = tmp_path / "stdin", tmp_path / "stdout"
    for fifo in fifos:
        os.mkfifo(fifo)
    link = GuestLink(*fifos)
    await link.open()
    with pytest.raises(SandboxError, match="did not answer"):
        await link.attach(0.2)
    await link.close()


async def test_a_sandbox_that_is_lost_in_the_middle_of_a_frame_ends_the_writing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stdin")
    os.mkfifo(tmp_path / "stdout")
    link = GuestLink(tmp_path / "stdin", tmp_path / "stdout")
    await link.open()
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(_refused(link, code)) for code in ("x" * 200_000, "y" * 200_000)]
        await asyncio.sleep(0)  # nobody reads: the first waits for room, the second for the first
        link.lose("its process ended")
        assert await asyncio.wait_for(asyncio.gather(*writers), 30) == ["its process ended"] * 2
    await link.close()


async def _refused(link: GuestLink, code: str) -> str:
    with pytest.raises(SandboxDied) as refusal:
        await link.execute(0, 0, code, replaying=False)
    return str(refusal.value)
