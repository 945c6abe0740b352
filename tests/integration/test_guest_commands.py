"""Commands in real sandboxes: what they may, what they survive, and what hostile ones cost the others."""

import signal
import time

import pytest
from tests.support.commands import Talk
from tests.support.conversations import Conversation
from tests.support.sandboxes import LIMITS, run

from torpor_worker.command import Terminal
from torpor_worker.sandbox import CommandEnded, CommandOutput, Result

pytestmark = pytest.mark.integration

AT_ONCE = 300


@pytest.fixture
def talk(sandbox):
    return Talk(sandbox)


async def test_a_command_has_no_privilege_and_a_session_of_its_own(talk):
    code = (
        "import os; from pathlib import Path; status = Path('/proc/self/status').read_text();"
        "print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.getsid(0) == os.getpgid(0) == os.getpid());"
        "print([line for line in status.splitlines() if line.startswith('CapEff')]);"
        "print(sorted(os.listdir('/proc/self/fd')), os.getcwd(), os.environ['HOME'])"
    )
    await talk.run(["python3", "-c", code])
    first, capabilities, third = talk.bytes(0).decode().splitlines()

    assert first == "1000 1000 1000 [] True"
    assert capabilities.endswith("0000000000000000']")
    assert third == "['0', '1', '2', '3'] /home/user /home/user"  # 3 is the listing itself


async def test_a_command_runs_beside_a_cell_that_holds_the_interpreter(sandbox, talk):
    seq = talk.number()
    await sandbox.execute(seq, seq, "while True: pass", replaying=False)
    started = time.monotonic()
    end = await talk.run("echo beside")

    assert end.exit_code == 0
    assert talk.bytes(1) == b"beside\n"
    assert time.monotonic() - started < 5
    await sandbox.interrupt(seq, step="interrupt")
    while not talk.others:
        await talk.hear()


async def test_a_command_goes_on_in_an_image_and_nothing_it_says_is_lost_or_repeated(host, sandbox, talk, folder):
    count = "for i in $(seq 1 400); do echo $i; sleep 0.005; done"
    seq = await talk.send(count, stdin_open=True)
    await talk.until(seq, b"50\n")
    heard = talk.bytes(seq)
    await sandbox.checkpoint(folder / "image")
    restored, state = await host.restore("restored", folder / "image", LIMITS)
    assert list(state.commands) == [seq]
    again = Talk(restored, first=10)
    await again.end(seq)
    await talk.end(seq)

    expected = b"".join(b"%d\n" % i for i in range(1, 401))
    assert talk.bytes(seq) == expected
    rest = again.said[seq]
    known = len(heard) - rest[0].offset
    assert known >= 0
    assert heard + again.bytes(seq)[known:] == expected


async def test_a_terminal_goes_on_in_an_image(host, sandbox, talk, folder):
    env = {"PS1": "ready> ", "TERM": "dumb"}
    shell = await talk.send(["bash", "--norc", "-i"], terminal=Terminal(30, 100), stdin_open=True, env=env)
    await talk.feed(shell, b"colour=green; stty size\n")
    await talk.until(shell, b"30 100\r\n")
    await sandbox.checkpoint(folder / "image")
    restored, _ = await host.restore("restored", folder / "image", LIMITS)
    again = Talk(restored, first=10)
    await again.signal(shell, signal.SIGWINCH, terminal=Terminal(11, 22))
    await again.feed(shell, b"echo it is $colour; stty size; sh -c 'echo in$0er; exec sleep 1000' n\n")
    await again.until(shell, b"it is green\r\n")
    await again.until(shell, b"11 22\r\n")
    await again.until(shell, b"inner\r\n")
    await again.feed(shell, b"\x03")
    while not again.bytes(shell).endswith(b"ready> "):  # what is typed before is thrown away by the terminal
        await again.hear()
    await again.feed(shell, b"exit 5\n")
    end = await again.end(shell)

    assert end.exit_code == 5


async def test_time_goes_by_the_whole_session_is_ended_however_it_resists(talk):
    seq = await talk.send("trap '' TERM INT HUP; (trap '' TERM; while :; do :; done) & echo up; wait")
    await talk.until(seq, b"up\n")
    await talk.signal(seq, signal.SIGTERM, session=True)
    await talk.signal(seq, signal.SIGKILL, session=True)
    end = await talk.end(seq)
    count = await talk.run("ps -eo stat,args 2>/dev/null | grep -c '[w]hile :' || true")

    assert end.signal == signal.SIGKILL
    assert count.exit_code == 0
    assert talk.bytes(count.seq) == b"0\n"


async def test_a_hundred_megabytes_are_counted_and_binary_output_is_kept_as_it_is(talk):
    end = await talk.run("head -c 100000000 /dev/urandom", limit_bytes=1 << 20)
    binary = await talk.run(["python3", "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 256)"])

    assert end.exit_code == 0
    assert len(talk.bytes(end.seq)) == 1 << 20
    assert talk.said[end.seq][-1].end == 100_000_000
    assert talk.bytes(binary.seq) == bytes(range(256)) * 256


async def test_pipes_that_are_closed_or_kept_open_do_not_hold_up_the_end(talk):
    closed = await talk.run("exec >&- 2>&- <&-; sleep 0.1; exit 4")
    kept = await talk.run("setsid -f sh -c 'sleep 0.5; echo from the daemon'; echo parent")

    assert closed.exit_code == 4
    assert kept.exit_code == 0
    assert talk.bytes(kept.seq) == b"parent\n"
    await talk.until(kept.seq, b"from the daemon\n")


async def test_zombies_are_buried(sandbox, talk):
    end = await talk.run("for i in $(seq 200); do (sleep 0 & exec true); done; echo ok")
    assert end.exit_code == 0
    await run_on(sandbox, talk, "import time; time.sleep(0.3)")
    await talk.run("cat /proc/[0-9]*/stat 2>/dev/null | awk '$3 == \"Z\"' | wc -l")

    assert talk.bytes(talk.order[-1].seq) == b"0\n"


async def run_on(sandbox, talk, code):
    seq = talk.number()
    await sandbox.execute(seq, seq, code, replaying=False)
    while not any(isinstance(each, Result) and each.seq == seq for each in talk.others):
        await talk.hear()


async def test_a_fork_bomb_ends_with_its_command_and_the_interpreter_lives(sandbox, talk):
    await run_on(sandbox, talk, "a = 3")
    end = await talk.run("bomb() { bomb | bomb & }; bomb; sleep 1000")

    assert end.signal == signal.SIGKILL
    assert "more than 256 processes" in end.reason
    await run_on(sandbox, talk, "a + 5")
    assert talk.others[-1].value == "8"


async def test_three_hundred_commands_at_once_hold_up_neither_the_interpreter_nor_each_other(sandbox, talk):
    seqs = [await talk.send(f"echo {number}") for number in range(AT_ONCE)]
    cell = talk.number()
    started = time.monotonic()
    await sandbox.execute(cell, cell, "1 + 1", replaying=False)
    while not talk.others:
        await talk.hear()
    waited = time.monotonic() - started
    for seq in seqs:
        await talk.end(seq)

    assert waited < 5
    assert [talk.bytes(seq) for seq in seqs] == [b"%d\n" % number for number in range(AT_ONCE)]


async def test_a_command_that_takes_all_memory_dies_and_the_interpreter_lives(sandbox, talk):
    await run_on(sandbox, talk, "a = 3")
    code = "import os; pieces = []\nwhile True: pieces.append(bytearray(os.urandom(1 << 20)) * 16)"
    end = await talk.run(["python3", "-c", code])

    assert end.signal == signal.SIGKILL or end.exit_code == 1  # a MemoryError comes first, where it can
    await run_on(sandbox, talk, "a + 5")
    assert talk.others[-1].value == "8"


async def test_commands_of_cells_work_as_before(sandbox):
    talk = Conversation(sandbox)
    answer = await talk.run("%%bash\necho from bash; echo to stderr >&2")
    assert answer.text() == "from bash\n"
    assert answer.text("stderr") == "to stderr\n"
    assert (await talk.run("!echo from a shell")).text() == "from a shell\n"
    assert not any(isinstance(each, CommandOutput | CommandEnded) for each in answer.outputs)


async def test_a_small_command_takes_a_few_milliseconds(sandbox, talk):
    times = []
    for _ in range(20):
        started = time.monotonic()
        await talk.run(["true"])
        times.append(time.monotonic() - started)
    assert sorted(times)[10] < 0.25
    await run(sandbox, talk.number(), "1")
