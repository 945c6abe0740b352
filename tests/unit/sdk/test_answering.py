"""Code that asks while `torpor run` and `torpor repl` follow it, against a stub server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.stub_server import API_KEY, StubServer
from tests.support.terminal import COMMAND, PATIENCE_SECONDS, terminal

NAME = [
    {"type": "stdout", "text": "Name? "},
    {"type": "input_request", "prompt": "Name? "},
    {"type": "stdout", "text": "hello\n"},
]
KEY = [
    {"type": "stderr", "text": "Key? "},
    {"type": "input_request", "prompt": "Key? ", "password": True},
    {"type": "stdout", "text": "opened\n"},
]
INTERRUPTED = {"name": "KeyboardInterrupt", "message": "", "traceback": ["Traceback:", "KeyboardInterrupt"]}


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


def given(stub: StubServer, name: str) -> list[dict[str, Any]]:
    return stub.machines[name][-1].given


def sent(stub: StubServer) -> dict[str, Any]:
    """What was sent with the code."""
    (body,) = [body for body in stub.bodies if "code" in body]
    return {key: value for key, value in body.items() if key.startswith("stdin")}


def piped(environment: dict[str, str], name: str, stdin: Any, data: bytes | None = None) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [COMMAND, "run", "-m", name, "-c", "f()"],
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if data is not None:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.flush()
    return process


def test_a_question_is_answered_at_the_terminal(environment: dict[str, str], stub: StubServer, name: str) -> None:
    stub.says("f()", *NAME)
    with terminal(environment, "run", "-m", name, "-c", "f()") as screen:
        screen.wait_for("Name? ")
        screen.type("Adam\x7f\r")  # the terminal's own editing
        screen.wait_for("hello\r\n")
        assert screen.wait_for_the_end() == 0
    assert given(stub, name) == [{"data": "Ada\n"}]
    assert b"\r\n\r\nhello" not in screen.raw
    assert sent(stub) == {"stdin_open": True}


def test_a_password_is_not_shown(environment: dict[str, str], stub: StubServer, name: str) -> None:
    stub.says("f()", *KEY, *NAME)
    with terminal(environment, "run", "-m", name, "-c", "f()") as screen:
        screen.wait_for("Key? ")
        screen.wait_until(lambda: not screen.is_echoing)
        screen.type("s3cret\r")
        screen.wait_for("\r\nopened\r\n")
        screen.wait_for("Name? ")
        screen.wait_until(lambda: screen.is_echoing)
        screen.type("Ada\r")
        assert screen.wait_for_the_end() == 0
    assert given(stub, name) == [{"data": "s3cret\n"}, {"data": "Ada\n"}]
    assert b"s3cret" not in screen.raw


def test_ctrl_d_is_the_end(environment: dict[str, str], stub: StubServer, name: str) -> None:
    stub.says("f()", *NAME, *NAME)
    with terminal(environment, "run", "-m", name, "-c", "f()") as screen:
        screen.wait_for("Name? ")
        screen.type("Ada")
        screen.wait_for("Ada")
        screen.type("\x04\x04")  # the first ends the line, as everywhere
        screen.wait_for("Name? ")
        screen.type("\x04")
        assert screen.wait_for_the_end() == 0
    assert given(stub, name) == [{"data": "Ada\n"}, {"close": True}]


def test_ctrl_c_at_a_question_interrupts_and_leaves_the_terminal_as_it_was(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    stub.says("f()", *KEY[:2], error="KeyboardInterrupt", error_detail=INTERRUPTED)
    with terminal(environment, "run", "-m", name, "-c", "f()") as screen:
        screen.wait_until(lambda: not screen.is_echoing)
        screen.type("half\x03")
        screen.wait_for("KeyboardInterrupt")
        assert screen.wait_for_the_end() == 130
        assert screen.is_echoing
    assert given(stub, name) == []


def test_one_who_is_answered_elsewhere_or_out_of_time_is_asked_no_longer(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    late = {"name": "TimeoutError", "message": "Timed out after 15 s", "traceback": ["Traceback:"]}
    stub.says("f()", *KEY, *NAME, error="Timed out after 15 s", error_detail=late)
    with terminal(environment, "run", "-m", name, "-c", "f()") as screen:
        screen.wait_until(lambda: not screen.is_echoing)
        stub.machines[name][0].give({"data": "from elsewhere\n"})
        screen.wait_for("Name? ")
        screen.wait_until(lambda: screen.is_echoing)
        stub.machines[name][0].interrupt()
        screen.wait_for("[its time was over before it had an answer; `--timeout 600` gives it more]")
        assert screen.wait_for_the_end() == 1


def test_a_question_is_shown_where_the_person_looks(environment: dict[str, str], stub: StubServer, name: str) -> None:
    stub.says("f()", *NAME)
    with terminal(environment, "run", "-m", name, "-c", "f()", "--json") as screen:
        screen.wait_for("Name? ")
        screen.type("Ada\r")
        screen.wait_for('"stdout": "Name? hello\\n"')
        assert screen.wait_for_the_end() == 0


def test_what_is_piped_in_is_handed_over(environment: dict[str, str], stub: StubServer, name: str) -> None:
    process = piped(environment, name, subprocess.PIPE)
    process.communicate(b"Ada\nGrace\n", timeout=PATIENCE_SECONDS)
    assert sent(stub) == {"stdin": "Ada\nGrace\n"}


def test_without_anything_to_read_nothing_is_handed_over(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    process = piped(environment, name, subprocess.DEVNULL)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert sent(stub) == {}


def test_a_pipe_that_does_not_end_is_read_when_the_code_asks(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    stub.says("f()", *NAME, *NAME)
    process = piped(environment, name, subprocess.PIPE, "é".encode()[:1])
    assert process.stdin is not None
    with process:
        while not stub.ran:
            assert process.poll() is None
        process.stdin.write("é".encode()[1:] + b"\nand more")
        process.stdin.close()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert sent(stub) == {"stdin_open": True}
    assert given(stub, name) == [{"data": "é\nand more"}, {"close": True}]


def test_a_pipe_that_nobody_closes_holds_up_nothing_that_reads_nothing(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    with piped(environment, name, subprocess.PIPE) as process:
        assert process.wait(PATIENCE_SECONDS) == 0
    assert stub.ran == ["f()"]


def test_what_is_no_text_is_refused_before_anything_runs(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    process = piped(environment, name, subprocess.PIPE)
    _, errors = process.communicate(b"\xff", timeout=PATIENCE_SECONDS)
    assert process.returncode == 3
    assert errors.startswith(b"torpor: What is piped in is not UTF-8 text.")
    assert stub.ran == []


def test_at_the_prompt_a_question_is_answered_and_the_prompt_comes_back(
    environment: dict[str, str], stub: StubServer, name: str
) -> None:
    stub.says("f()", *NAME)
    stub.says("g()", *KEY[:2], error="KeyboardInterrupt", error_detail=INTERRUPTED)
    with terminal(environment, "repl", name) as screen:
        screen.wait_for_prompt()
        screen.type("f()\r")
        screen.wait_for("Name? ")
        screen.say("Ada\r", "hello\r\n")
        assert given(stub, name) == [{"data": "Ada\n"}]
        screen.type("f()\r")
        screen.wait_for("Name? ")
        screen.say("\x04", "hello\r\n")
        assert given(stub, name) == [{"close": True}]
        screen.type("g()\r")
        screen.wait_for("Key? ")
        screen.wait_until(lambda: not screen.is_echoing)
        screen.say("\x03", "KeyboardInterrupt")
        screen.say("a\r")
    assert stub.ran == ["f()", "f()", "g()", "a"]
