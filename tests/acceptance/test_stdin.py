"""What code reads, on a real server with real sandboxes: in replays the same, and answered over every kind of end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

READS = """
import getpass, subprocess, sys
read = [input('Name? '), getpass.getpass('Key? '), sys.stdin.readline()]
head = subprocess.run(['cat'], capture_output=True, text=True).stdout
"""
ASKS = "names = [input('First? '), input('Second? ')]\nnames"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[torpor.Client]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client


def test_a_recovery_reads_again_what_was_read_at_first(server: ServerProcess, client: torpor.Client) -> None:
    machine = client.machine("reader")
    result = machine.run(READS, stdin="Ada\nsecret\nlast\n" + "x" * 100_000)
    result.raise_for_error()
    assert (result.stdout, result.stderr) == ("Name? ", "Key? ")
    error = machine.run("input()").error
    assert error is not None
    assert (error.name, "nobody is at this machine's keyboard" in error.message) == ("EOFError", True)
    before = machine.run("read, len(head)").value
    assert before is not None
    assert before.startswith("(['Ada', 'secret', 'last\\n'], ")
    server.kill_all()
    server.start()
    again = machine.run("read, len(head)")
    assert again.value == before
    assert [notice.code for notice in again.notices if notice.code in {"replayed", "differed"}] == ["replayed"]
    assert machine.instruction(0).stdin == "Ada\nsecret\nlast\n" + "x" * 100_000


def stopped_and_started(server: ServerProcess) -> None:
    server.restart()


def killed_with_its_sandboxes_left(server: ServerProcess) -> None:
    server.kill()
    server.start()


def killed_with_everything(server: ServerProcess) -> None:
    server.kill_all()
    server.start()


@pytest.mark.parametrize("ended", [stopped_and_started, killed_with_its_sandboxes_left, killed_with_everything])
def test_one_who_waits_for_an_answer_is_answered_after_the_server_ended(
    server: ServerProcess, client: torpor.Client, ended: Callable[[ServerProcess], None]
) -> None:
    asked: list[str] = []

    def answer(question: torpor.InputRequest) -> str:
        asked.append(question.prompt)
        if question.prompt == "Second? ":
            ended(server)
        return {"First? ": "Ada", "Second? ": "Grace"}[question.prompt]

    machine = client.machine("asker")
    assert machine.run(ASKS, on_input=answer, timeout_seconds=200).value == "['Ada', 'Grace']"
    assert asked == ["First? ", "Second? "]
    again = machine.run("names")
    assert again.value == "['Ada', 'Grace']"
    server.kill_all()
    server.start()
    replayed = machine.run("names")
    assert replayed.value == "['Ada', 'Grace']"
    assert "differed" not in [notice.code for notice in replayed.notices]


def test_going_back_to_an_instruction_takes_its_answers_along(client: torpor.Client) -> None:
    machine = client.machine("traveller")
    machine.run("a = 1")
    execution = machine.start("b = [input(), input()]", stdin_open=True)
    execution.send_stdin("one\n")
    execution.send_stdin("two\n")
    execution.wait().raise_for_error()
    machine.run("a = 2")
    (fork,) = machine.fork(seq=execution.seq)
    assert fork.run("a, b").value == "(1, ['one', 'two'])"
    machine.rollback(seq=execution.seq)
    assert machine.run("a, b").value == "(1, ['one', 'two'])"


def test_somebody_else_answers_and_commands_run_meanwhile(server: ServerProcess, client: torpor.Client) -> None:
    machine = client.machine("shared")
    is_asked = threading.Event()
    stream = machine.stream("input('?')", stdin_open=True, timeout_seconds=60)

    def follow() -> None:
        for event in stream:
            if isinstance(event, torpor.InputRequest):
                is_asked.set()

    follower = threading.Thread(target=follow)
    follower.start()
    assert is_asked.wait(60)
    assert machine.commands.run("echo beside").stdout == "beside\n"
    assert machine.complete("impo").matches == ()
    with torpor.Client(url=server.url, api_key=server.api_key) as other:
        other.machine("shared").execution(0).send_stdin("here\n")
    follower.join(60)
    assert stream.result().value == "'here'"
