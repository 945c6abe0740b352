"""The prompt of `torpor repl`, through a real terminal, against a stub server."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stub_server import API_KEY, Cut, Refuse, Script, StubServer
from tests.support.terminal import Terminal, terminal

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")
FIGURE = {"type": "display", "data": {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}}
FRAME = (
    '<table border="1" class="dataframe"><thead><tr><th></th><th>a</th></tr></thead>'
    "<tbody><tr><th>0</th><td>3</td></tr></tbody></table>"
)
ASK_ATTRIBUTES = b"\x1b[c"


@pytest.fixture
def environment(stub: StubServer, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "TORPOR_URL": stub.url,
        "TORPOR_API_KEY": API_KEY,
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }


@pytest.fixture
def name(stub: StubServer) -> str:
    return stub.new_machine()


@pytest.fixture
def screen(environment: dict[str, str], stub: StubServer, name: str) -> Iterator[Terminal]:
    with terminal(environment, "repl", name) as screen:
        screen.wait_for_prompt()
        screen.wait_until(lambda: any("/exec?" in path for _, path, _ in stub.requests))  # the history was asked for
        yield screen


def press_until(screen: Terminal, key: str, text: str) -> None:
    """Press a key, again if it has shown nothing after a while."""
    for _ in range(5):
        screen.type(key)
        if text in screen.shows_for(1):
            return
    pytest.fail(f"No {text!r} in {screen.text!r}")


def test_enter_runs_a_whole_cell_and_begins_a_line_in_the_middle_of_one(screen: Terminal, stub: StubServer) -> None:
    stub.says("a + 5", value="8")
    screen.say("a + 5\r", "8\r\n")
    stub.says("for i in x:\n    if i:\n        break\n    f(i)", {"type": "stdout", "text": "looped"})
    screen.say("for i in x:\rif i:\rbreak\rf(i)\r\r", "looped")
    screen.say("await f(\r1)\r")
    screen.say("%%bash\recho 1\r\r")
    assert stub.ran == [
        "a + 5",
        "for i in x:\n    if i:\n        break\n    f(i)",
        "await f(\n1)",
        "%%bash\necho 1",
    ]


def test_magics_shell_commands_and_help_go_to_the_machine_as_they_are(screen: Terminal, stub: StubServer) -> None:
    for code in ("!ls -la", "%timeit f()", "len?", "files = !ls", "?len"):
        screen.type(f"{code}\r")
        screen.wait_for_prompt()
    assert stub.ran == ["!ls -la", "%timeit f()", "len?", "files = !ls", "?len"]


def test_a_line_can_be_edited_and_what_was_pasted_runs_when_the_user_says_so(
    screen: Terminal, stub: StubServer
) -> None:
    screen.type("b + 5\x01\x04a\x05 + 1")  # Ctrl-A, delete, Ctrl-E
    screen.say("\r")
    screen.type("\x1b[200~x = 1\ny = 2\n\x1b[201~")
    assert "Traceback" not in screen.shows_for(0.3)
    assert stub.ran == ["a + 5 + 1"]
    screen.say("\r")
    assert stub.ran == ["a + 5 + 1", "x = 1\ny = 2"]


def test_the_history_is_that_of_the_machine_and_then_of_this_computer(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    other = stub.new_machine()
    with terminal(environment, "repl", other) as screen:
        screen.wait_for_prompt()
        screen.say("typed_here()\r")
        screen.type("\x04")
        assert screen.wait_for_the_end() == 0
    stub.execute(name, "ran_by_an_agent()")
    with terminal(environment, "repl", name) as screen:
        screen.wait_for_prompt()
        press_until(screen, "\x1b[A", "ran_by_an_agent()")  # it is fetched while the user looks at the prompt
        screen.type("\x1b[A")
        screen.wait_for("typed_here()")
        screen.say("\r")
        stub.execute(name, "another_client()")
        screen.say("mine()\r")
        press_until(screen, "\x1b[A", "mine()")
        screen.type("\x1b[A")
        screen.wait_for("another_client()")
    assert [ran.code for ran in stub.machines[name]] == [
        "ran_by_an_agent()",
        "typed_here()",
        "another_client()",
        "mine()",
    ]


def test_tab_completes_by_what_the_machine_knows(screen: Terminal, stub: StubServer) -> None:
    stub.completions["df.hea"] = (["df.head_of_it"], 0, 6)
    screen.type("df.hea")
    screen.wait_for("df.hea")
    screen.type("\t")
    screen.wait_for("_of_it")
    screen.say("()\r")
    stub.completions["x = df.h"] = (["df.head", "df.hist"], 4, 8)
    screen.type("x = df.h\t")
    screen.wait_for("hist")
    screen.type("\t\t\r")
    screen.say("\r")
    assert stub.ran == ["df.head_of_it()", "x = df.hist"]


def test_tab_indents_at_the_beginning_of_a_line(screen: Terminal, stub: StubServer) -> None:
    screen.say("if a:\r\x15\tf()\r\r")
    assert stub.ran == ["if a:\n    f()"]


def test_a_server_that_knows_no_completion_completes_nothing(screen: Terminal, stub: StubServer) -> None:
    stub.completions["prin"] = None
    screen.type("prin\t")
    assert "print" not in screen.shows_for(0.5)
    screen.say("t()\r")
    assert stub.ran == ["print()"]


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves_the_machine_living(
    screen: Terminal, stub: StubServer, name: str
) -> None:
    screen.type("half of a thou")
    screen.wait_for("thou")
    screen.say("\x03")
    screen.say("a\r")
    screen.type("\x04")
    screen.wait_for(f"The machine lives on. To come back: torpor repl {name}")
    assert screen.wait_for_the_end() == 0
    assert stub.ran == ["a"]
    assert name in stub.machines


def test_ctrl_c_interrupts_the_machine_and_not_the_client(screen: Terminal, stub: StubServer, name: str) -> None:
    detail = {"name": "KeyboardInterrupt", "message": "", "traceback": ["Traceback:", "KeyboardInterrupt"]}
    stub.scripts["spin()"] = Script(result={"error": "KeyboardInterrupt", "error_detail": detail}, blocks=True)
    stub.on_block = lambda: screen.type("\x03")
    screen.say("spin()\r", "KeyboardInterrupt")
    assert [path for method, path, _ in stub.requests if path.endswith("/interrupt")] == [
        f"/v1/machine/{name}/interrupt"
    ]
    assert {"seq": 0} in stub.bodies
    screen.say("a\r")


def test_the_third_ctrl_c_leaves_what_does_not_end(screen: Terminal, stub: StubServer) -> None:
    stub.scripts["spin()"] = Script(blocks=True, stubborn=True)
    stub.on_block = lambda: screen.type("\x03")
    screen.type("spin()\r")
    screen.wait_for("^C")
    screen.wait_until(lambda: stub.requests[-1][1].endswith("/interrupt"))
    screen.type("\x03")
    screen.wait_for("\r\n[the machine ends it by force within 5 seconds; Ctrl-C once more leaves without waiting]\r\n")
    screen.type("\x03")
    screen.wait_for("[it runs on; `:interrupt` ends it, `:output 0` shows what it says]")
    screen.wait_for_prompt()
    screen.say("a\r")
    assert stub.ran == ["spin()", "a"]


def test_a_connection_that_breaks_is_reported_only_if_it_stays_away(screen: Terminal, stub: StubServer) -> None:
    stub.says("f()", *({"type": "stdout", "text": f"line {number}\n"} for number in range(3)))
    stub.faults.append(Cut(1))
    screen.say("f()\r", "line 2")
    assert "reconnecting" not in screen.text
    stub.says("g()", *({"type": "stdout", "text": f"row {number}\n"} for number in range(3)))
    stub.faults += [Cut(1), *[Refuse(503, "shutting_down")] * 3]
    screen.type("g()\r")
    for line in ("row 0", "[the connection was lost; reconnecting …]", "[connected again]", "row 1", "row 2"):
        screen.wait_for(line)
    assert stub.ran == ["f()", "g()"]


def test_progress_bars_stay_on_their_line_and_nothing_harms_the_terminal(screen: Terminal, stub: StubServer) -> None:
    stub.says(
        "f()",
        {"type": "stdout", "text": "  0%\r"},
        {"type": "stdout", "text": " 50%\r\x1b[K"},
        {"type": "stderr", "text": "\x1b]52;c;cm0gLXJmIH4=\x07"},
        {"type": "stdout", "text": "\x1b[31mred\x1b"},
        {"type": "stdout", "text": "]0;title\x07\x1b[2J\x1bP$qm\x1b\\\x9b6n done"},
        value="'\x1b[5;5Hvalue'",
    )
    screen.say("f()\r", "'value'")
    assert b"  0%\r 50%\r\x1b[K\x1b[31mred done\x1b[0m\r\n'value'\r\n" in screen.raw
    for harm in (b"\x1b]52", b"\x1b]0;", b"\x1b[2J", b"\x1bP", b"\x9b", b"\x1b[5;5H"):
        assert harm not in screen.raw


def test_an_error_is_a_traceback_in_colours(screen: Terminal, stub: StubServer) -> None:
    lines = ["Traceback (most recent call last):", '  File "<cell 0>", line 1, in <module>', "ValueError: \x1b[2Jno"]
    detail = {"name": "ValueError", "message": "no", "traceback": lines}
    stub.says("f()", error="ValueError: no", error_detail=detail)
    screen.say("f()\r", "ValueError: no\r\n")
    assert b"\x1b[91mValueError\x1b[39;49;00m: no" in screen.raw
    assert b"\x1b[2J" not in screen.raw


def test_data_frames_are_tables(screen: Terminal, stub: StubServer) -> None:
    stub.says("df", value="   a\n0  3", data={"html": FRAME})
    screen.say("df\r", "   a\r\n────\r\n0  3\r\n")


def test_notices_are_shown(screen: Terminal, stub: StubServer) -> None:
    stub.says("f()", {"type": "notice", "code": "replayed", "message": "Instruction 3 ran again.", "id": 7})
    screen.say("f()\r", "[replayed] Instruction 3 ran again.")


@pytest.mark.parametrize(
    ("settings", "answers", "drawn"),
    [
        (
            {"TERM": "xterm-kitty"},
            {},
            b"\x1b_Ga=T,f=100,q=2,m=0;" + base64.b64encode(PNG) + b"\x1b\\\r\n",
        ),
        (
            {"TERM_PROGRAM": "iTerm.app"},
            {},
            b"\x1b]1337;File=inline=1;size=69;preserveAspectRatio=1:" + base64.b64encode(PNG) + b"\x07\r\n",
        ),
        (
            {},
            {ASK_ATTRIBUTES: b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c"},
            b"\x1b_Ga=T,f=100,q=2,m=0;" + base64.b64encode(PNG) + b"\x1b\\\r\n",
        ),
        ({}, {ASK_ATTRIBUTES: b"\x1b[?62;4;22c"}, b'\x1bPq"1;1;1;1#180;2;100;0;0#180@\x1b\\\r\n'),
    ],
)
def test_pictures_are_shown_as_the_terminal_takes_them(
    environment: dict[str, str],
    stub: StubServer,
    name: str,
    settings: dict[str, str],
    answers: dict[bytes, bytes],
    drawn: bytes,
) -> None:
    stub.says("plot()", FIGURE)
    with terminal(environment | settings, "repl", name, answers=answers) as screen:
        screen.wait_for_prompt()
        screen.say("plot()\r")
        assert drawn in screen.raw
        screen.say("plot()\r")
        assert screen.raw.count(drawn) == 2
        assert screen.raw.count(ASK_ATTRIBUTES) == len(answers)
        screen.say("print('no key was swallowed')\r")
    assert stub.ran == ["plot()", "plot()", "print('no key was swallowed')"]


@pytest.mark.parametrize(
    ("settings", "answers", "asked"),
    [
        ({}, {ASK_ATTRIBUTES: b"\x1b[?62;22c"}, True),
        ({}, {}, True),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, {ASK_ATTRIBUTES: b"\x1b[?1;2c"}, True),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, {}, False),
    ],
)
def test_pictures_that_the_terminal_does_not_take_go_into_files(
    environment: dict[str, str],
    stub: StubServer,
    name: str,
    tmp_path: Path,
    settings: dict[str, str],
    answers: dict[bytes, bytes],
    asked: bool,
) -> None:
    stub.says("plot()", FIGURE)
    with terminal(environment | settings, "repl", name, answers=answers, columns=200) as screen:
        screen.wait_for_prompt()
        path = tmp_path / ".cache" / "torpor" / "pictures" / name / "0-1.png"
        screen.type("plot()\r")
        screen.wait_for(f"[{path}]")
        assert path.read_bytes() == PNG
        assert (ASK_ATTRIBUTES in screen.raw) is asked
        assert b"\x1b_Ga=T" not in screen.raw
        assert (b"\x1b_G" in screen.raw) is (asked and "TERM" not in settings)


def test_a_narrow_terminal_and_one_that_is_resized_show_all(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    stub.says("f()", {"type": "stdout", "text": "x" * 100 + "end"}, value="1")
    with terminal(environment, "repl", name, columns=20) as screen:
        screen.wait_for_prompt()
        screen.type("f(  )\x7f\x7f\x7f)")
        screen.resize(30)
        screen.say("\r", "end")
    assert stub.ran == ["f()"]


@pytest.mark.parametrize("settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_there_are_no_colours_where_none_are_wanted(
    environment: dict[str, str], stub: StubServer, name: str, settings: dict[str, str]
) -> None:
    detail = {"name": "ValueError", "message": "no", "traceback": ["Traceback:", "ValueError: no"]}
    stub.says("f(1)", {"type": "stdout", "text": "\x1b[31mred\x1b[0m"}, error="ValueError: no", error_detail=detail)
    with terminal(environment | settings, "repl", name) as screen:
        screen.wait_for_prompt()
        screen.say("f(1)\r", "ValueError: no\r\n")
        screen.type("\x04")
        assert screen.wait_for_the_end() == 0
    assert b"red\r\nTraceback:\r\nValueError: no\r\n" in screen.raw
    assert {*re.findall(rb"\x1b\[[0-9;]*m", screen.raw)} <= {b"\x1b[0m"}
    if settings.get("TERM") == "dumb":
        assert b"\x1b" not in screen.raw


def test_the_prompts_own_commands(screen: Terminal, stub: StubServer, name: str) -> None:
    stub.says("a + 5", {"type": "stdout", "text": "adding\n"}, value="8")
    screen.say("a + 5\r", "8\r\n")
    screen.say(":help\r", "Ctrl-D")
    screen.say(":log\r", "a + 5")
    screen.say(":output\r", "adding\r\n8\r\n")
    screen.say(":out 0\r", "adding\r\n8\r\n")
    screen.say(":show\r", "memory_mb")
    screen.say(":sleep\r", "It is asleep; whatever you run next wakes it.")
    screen.say(":sync\r", "All of it is stored.")
    screen.say(":rollback\r", "Where to?")
    screen.say(":undo\r", "There is no rollback to take back.")
    screen.say(":nonsense\r", "There is no command :nonsense.")
    screen.say(":output x\r", "'x' is no number of an instruction.")
    screen.say(":s\r", "There is no command :s.")
    screen.say(":use nobody0000000000\r", "No machine of this name belongs to the account.")
    other = stub.new_machine()
    screen.say(f":use {other}\r", f"Machine {other}.")
    screen.say("b\r")
    screen.type(":quit\r")
    screen.wait_for(f"torpor repl {other}")
    assert screen.wait_for_the_end() == 0
    assert [ran.code for ran in stub.machines[other]] == ["b"]
    assert [ran.code for ran in stub.machines[name]] == ["a + 5"]


def test_exit_leaves_and_is_not_run(screen: Terminal, stub: StubServer) -> None:
    screen.type("exit()\r")
    screen.wait_for("The machine lives on.")
    assert screen.wait_for_the_end() == 0
    assert stub.ran == []


def test_a_machine_that_somebody_deletes_ends_the_conversation_with_a_sentence(
    screen: Terminal, stub: StubServer, name: str
) -> None:
    del stub.machines[name]
    screen.type("a\r")
    screen.wait_for("torpor: No machine of this name belongs to the account.")
    assert screen.wait_for_the_end() == 3


def test_without_a_machine_there_is_a_new_one(environment: dict[str, str], stub: StubServer) -> None:
    with terminal(environment, "repl") as screen:
        screen.wait_for("Machine machine000000000 at ")
        screen.wait_for_prompt()
        screen.type("\x04")
        assert screen.wait_for_the_end() == 0
    assert list(stub.machines) == ["machine000000000"]
