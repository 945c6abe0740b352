"""Commands beside cells, the guest running as plain processes of this host."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.support.commands import Talk
from tests.support.conversations import Conversation
from tests.support.host_guests import attached, host_guest
from tests.support.sandboxes import ended

from torpor_worker.command import Terminal
from torpor_worker.guest.command import Command, Limits
from torpor_worker.guest_link import GuestLink
from torpor_worker.sandbox import CommandOutput


@pytest.fixture
async def fifos(tmp_path: Path) -> AsyncIterator[tuple[Path, Path]]:
    async with host_guest(tmp_path) as fifos:
        yield fifos


@pytest.fixture
async def link(fifos: tuple[Path, Path]) -> AsyncIterator[GuestLink]:
    link = await attached(fifos, new=True)
    yield link
    await link.close()


@pytest.fixture
def talk(link: GuestLink) -> Talk:
    return Talk(link)


async def test_a_shell_command_says_what_it_writes_and_how_it_ended(talk: Talk) -> None:
    end = await talk.run("echo one; echo two >&2; exit 3")

    assert (end.exit_code, end.signal) == (3, None)
    assert talk.bytes(0) == b"one\n"
    assert talk.bytes(0, "stderr") == b"two\n"


async def test_arguments_are_passed_as_they_are(talk: Talk) -> None:
    await talk.run(["printf", "%s|", "$HOME", "a b", "*"])

    assert talk.bytes(0) == b"$HOME|a b|*|"


async def test_folder_and_environment_are_as_asked(talk: Talk, tmp_path: Path) -> None:
    await talk.run("pwd; echo $COLOUR", cwd=str(tmp_path), env={"COLOUR": "gr\u00fcn"})

    assert talk.bytes(0).decode() == f"{tmp_path}\ngr\u00fcn\n"


@pytest.mark.parametrize(
    ("command", "more", "code", "said"),
    [
        (["/no/such/program"], {}, 127, b"'/no/such/program' cannot be started: No such file"),
        (["/etc"], {}, 126, b"cannot be started: Permission denied"),
        ("pwd", {"cwd": "/no/such/folder"}, 126, b"the folder '/no/such/folder' cannot be entered"),
    ],
)
async def test_what_cannot_be_started_says_why(
    talk: Talk, command: str | list[str], more: dict[str, str], code: int, said: bytes
) -> None:
    end = await talk.run(command, **more)

    assert end.exit_code == code
    assert said in talk.bytes(0, "stderr")


async def test_its_standard_input_is_what_was_given_and_then_ends(talk: Talk) -> None:
    big = b"x" * 300_000
    await talk.run("wc -c", stdin=big)
    await talk.run("cat | wc -c")

    assert talk.bytes(0) == b"300000\n"
    assert talk.bytes(1) == b"0\n"


async def test_more_input_may_follow_until_it_is_closed(talk: Talk) -> None:
    seq = await talk.send("while read line; do echo got $line; done; echo end", stdin=b"a\n", stdin_open=True)
    await talk.until(seq, b"got a\n")
    await talk.feed(seq, b"b\nc")
    await talk.until(seq, b"got b\n")
    await talk.feed(seq, b"\n", close=True)
    await talk.end(seq)

    assert talk.bytes(seq) == b"got a\ngot b\ngot c\nend\n"


async def test_input_for_what_has_ended_or_closed_it_is_dropped(talk: Talk) -> None:
    seq = await talk.send("exec <&-; echo closed; sleep 0.2; echo still here", stdin_open=True)
    await talk.until(seq, b"closed\n")
    await talk.feed(seq, b"nobody reads this" * 10_000)
    await talk.end(seq)
    await talk.feed(seq, b"nor this")

    assert talk.bytes(seq) == b"closed\nstill here\n"
    assert (await talk.run("echo next")).exit_code == 0


async def test_a_signal_ends_it_and_is_told(talk: Talk) -> None:
    seq = await talk.send("echo ready; exec sleep 1000")
    await talk.until(seq, b"ready\n")
    await talk.signal(seq, signal.SIGTERM)
    end = await talk.end(seq)

    assert (end.exit_code, end.signal) == (None, signal.SIGTERM)


def test_a_signal_reaches_it_from_its_very_start(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = os.setsid
    monkeypatch.setattr(os, "setsid", lambda: (time.sleep(0.2), at_once()))
    fields = {"seq": 0, "argv": "sleep 1000", "cwd": None, "env": {}, "stdin": "", "stdin_open": False}
    command = Command(fields | {"terminal": None, "output_limit_bytes": 1000})
    command.start(Limits())

    assert command.pid is not None
    os.killpg(command.pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(command.pid, 0)[1]) == signal.SIGKILL
    for fd in command.fds:
        os.close(fd)


async def test_a_kill_of_its_session_reaches_what_left_its_process_group(talk: Talk) -> None:
    seq = await talk.send(
        "set -m; trap '' TERM; (trap '' TERM; echo inner $BASHPID; sleep 1000) & echo outer; wait; sleep 1000"
    )
    await talk.until(seq, b"outer\n")
    await talk.until(seq, b"inner ")
    await talk.signal(seq, signal.SIGTERM, session=True)
    await talk.signal(seq, signal.SIGKILL, session=True)
    end = await talk.end(seq)

    assert end.signal == signal.SIGKILL
    inner = int(talk.bytes(seq).split(b"inner ")[1].split()[0])
    await ended([psutil.Process(inner)] if psutil.pid_exists(inner) else [])


async def test_it_ends_with_its_first_process_though_a_daemon_keeps_its_pipes_open(talk: Talk) -> None:
    end = await talk.run("(sleep 0.3; echo later) & echo now")
    assert end.exit_code == 0
    assert talk.bytes(0) == b"now\n"

    await talk.until(0, b"later\n")
    last = talk.said[0][-1]
    assert last.offset == len(b"now\n")


async def test_what_was_written_before_the_end_is_said_before_it(talk: Talk) -> None:
    size = 3_000_000
    await talk.run(f"head -c {size} /dev/zero; echo done >&2")

    assert len(talk.bytes(0)) == size
    assert talk.bytes(0, "stderr") == b"done\n"
    assert talk.order[-1] is talk.ends[0]


async def test_beyond_the_limit_output_is_only_counted(talk: Talk) -> None:
    end = await talk.run("head -c 5000000 /dev/zero", limit_bytes=100_000)
    said = talk.said[0]

    assert end.exit_code == 0
    assert len(talk.bytes(0)) == 100_000
    assert sum(each.skipped_bytes for each in said) == 4_900_000
    assert [each.offset for each in said] == [0, *(each.end for each in said[:-1])]


async def test_a_command_that_floods_leaves_room_for_cells(link: GuestLink, talk: Talk) -> None:
    seq = await talk.send("yes", limit_bytes=1 << 60)
    while sum(map(len, (each.data for each in talk.said.get(seq, [])))) < 300_000:
        await talk.hear(acknowledge=False)
    number = talk.number()
    await link.execute(number, number, "'heard'", replaying=False)
    while not talk.others:
        await talk.hear(acknowledge=False)  # the command's share of the window is full, the interpreter's is not

    assert getattr(talk.others[0], "value", None) == "'heard'"
    await link.acknowledge()
    await talk.signal(seq, signal.SIGKILL)
    await talk.end(seq)


async def test_commands_run_beside_a_cell_that_never_ends(link: GuestLink, talk: Talk) -> None:
    seq = talk.number()
    await link.execute(seq, seq, "while True: pass", replaying=False)
    end = await talk.run("echo beside")

    assert end.exit_code == 0
    assert talk.bytes(1) == b"beside\n"
    await link.interrupt(seq, step="interrupt")
    while not talk.others:
        await talk.hear()


async def test_a_position_that_was_seen_is_not_executed_again(link: GuestLink, talk: Talk) -> None:
    await talk.run("echo once")
    again = Talk(link)
    await again.send("echo twice")
    state = await link.ping()

    assert state.commands == {}
    assert state.last_position == 0


async def test_the_state_names_what_runs(link: GuestLink, talk: Talk) -> None:
    seq = await talk.send("echo ready; sleep 1000")
    await talk.until(seq, b"ready\n")
    state = await link.ping()

    assert state.commands is not None
    assert list(state.commands) == [seq]
    assert state.background
    await talk.signal(seq, signal.SIGKILL, session=True)
    await talk.end(seq)


async def test_what_another_host_did_not_hear_is_said_again(fifos: tuple[Path, Path], link: GuestLink) -> None:
    talk = Talk(link)
    await talk.send("echo one; echo two >&2")
    first = [await talk.hear(acknowledge=False)]
    while 0 not in talk.ends:
        first.append(await talk.hear(acknowledge=False))
    await link.close()
    other = await attached(fifos, new=False)
    again = Talk(other)
    await again.end(0)
    await other.close()

    assert again.order == first


async def test_a_terminal_is_one_and_has_the_size_asked_for(talk: Talk) -> None:
    seq = await talk.send("tty; stty size; read line; echo got $line; stty size", terminal=Terminal(33, 99))
    await talk.until(seq, b"33 99\r\n")
    await talk.signal(seq, signal.SIGWINCH, terminal=Terminal(10, 20))
    await talk.feed(seq, b"hello\n")
    end = await talk.end(seq)

    assert end.exit_code == 0
    assert b"/dev/pts/" in talk.bytes(seq)
    assert talk.bytes(seq).endswith(b"got hello\r\n10 20\r\n")


async def test_the_keys_of_a_terminal_work(talk: Talk) -> None:
    seq = await talk.send(
        "trap 'echo interrupted' INT; echo ready; sleep 1000; cat; echo end", terminal=Terminal(), stdin_open=True
    )
    await talk.until(seq, b"ready\r\n")
    await talk.feed(seq, b"\x03")
    await talk.until(seq, b"interrupted\r\n")
    await talk.feed(seq, close=True)
    end = await talk.end(seq)

    assert end.exit_code == 0
    assert talk.bytes(seq).endswith(b"end\r\n")


async def test_cells_start_processes_as_before(link: GuestLink) -> None:
    answer = await Conversation(link).run("import os\nos.system('echo from a cell')")

    assert answer.text() == "from a cell\n"
    assert not any(isinstance(each, CommandOutput) for each in answer.outputs)
