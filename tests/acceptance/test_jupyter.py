"""A notebook whose variables are still there next year: Jupyter's own clients on the kernel that the SDK brings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import torpor
from torpor.jupyter.binding import alias_of

if TYPE_CHECKING:
    from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

NOTEBOOK = "/home/ada/notebooks/Über die Daten.ipynb"
SECONDS = 60


def environment(server: ServerProcess, **more: str) -> dict[str, str]:
    key = {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key}
    return server.environment() | key | more


def run_notebook(server: ServerProcess, *codes: str) -> list[list[Any]]:
    """Run a notebook of these cells in a kernel of its own; the outputs of each."""
    notebook = new_notebook(cells=[new_code_cell(code) for code in codes])
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="torpor", allow_errors=True)
    client.execute(env=environment(server, JPY_SESSION_NAME=NOTEBOOK))
    return [cell.outputs for cell in notebook.cells]


@contextmanager
def kernel(server: ServerProcess, **more: str) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager = KernelManager(kernel_name="torpor")
    manager.start_kernel(env=environment(server, **more))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def reply_to(client: BlockingKernelClient, request: str) -> dict[str, Any]:
    """What is replied to a request; a late one to an earlier request, while the kernel started, is passed by."""
    while (reply := client.get_shell_msg(timeout=SECONDS))["parent_header"].get("msg_id") != request:
        pass
    content: dict[str, Any] = reply["content"]
    return content


def execute(client: BlockingKernelClient, code: str) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The reply to a cell, and the messages that it published."""
    shown: list[tuple[str, dict[str, Any]]] = []
    reply = client.execute_interactive(
        code,
        timeout=SECONDS,
        output_hook=lambda message: shown.append((message["msg_type"], message["content"])),
    )
    return reply["content"], [one for one in shown if one[0] not in ("status", "execute_input")]


def value(client: BlockingKernelClient, code: str) -> str | None:
    for kind, content in execute(client, code)[1]:
        if kind == "execute_result":
            return str(content["data"]["text/plain"])
    return None


def test_variables_are_still_there_after_the_kernel_the_machine_and_the_server_have_gone(server: ServerProcess) -> None:
    first = run_notebook(
        server,
        "a = 3\nprint('hello')\na",
        "import pandas as pd; pd.DataFrame({'x': [1, 2]})",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
        "1 / 0",
    )
    assert first[0][0] == {"output_type": "stream", "name": "stdout", "text": "hello\n"}
    assert first[0][1]["data"] == {"text/plain": "3"}
    assert "<table" in first[1][0]["data"]["text/html"]
    assert first[2][-1]["data"]["image/png"].startswith("iVBOR")
    assert (first[3][0]["ename"], first[3][0]["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert any("1 / 0" in line for line in first[3][0]["traceback"])

    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.machine(alias_of(NOTEBOOK), create=False)
        assert machine.detail().tags == {"made-by": "jupyter", "notebook": NOTEBOOK}
        machine.sleep()
        server.restart()
        again = run_notebook(server, "a + 5")
        assert again[0][0]["data"] == {"text/plain": "8"}
        assert len(client.machines()) == 1


def test_a_machine_that_sleeps_in_the_middle_of_a_notebook_is_not_noticed(server: ServerProcess) -> None:
    with kernel(server) as (_, client), torpor.Client(url=server.url, api_key=server.api_key) as api:
        reply, shown = execute(client, "a = 3")
        assert reply["status"] == "ok"
        assert "%torpor use" in shown[0][1]["text"]
        (machine,) = api.machines()
        assert machine.name in shown[0][1]["text"]
        machine.sleep()
        assert value(client, "a + 5") == "8"
        assert machine.name in execute(client, "%torpor")[1][0][1]["text"]


def test_a_notebook_is_run_by_nbclient_while_its_machine_sleeps_between_two_cells(server: ServerProcess) -> None:
    notebook = new_notebook(cells=[new_code_cell("a = 3"), new_code_cell("print('awake'); a + 5"), new_code_cell("a")])
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="torpor")
    with (
        client.setup_kernel(env=environment(server, JPY_SESSION_NAME=NOTEBOOK)),
        torpor.Client(url=server.url, api_key=server.api_key) as api,
    ):
        client.execute_cell(notebook.cells[0], 0)
        machine = api.machine(alias_of(NOTEBOOK), create=False)
        machine.sleep()
        assert machine.detail().state == "asleep"
        client.execute_cell(notebook.cells[1], 1)
        client.execute_cell(notebook.cells[2], 2)
        history = [row.code for row in machine.history()]
    assert notebook.cells[1].outputs[0] == {"output_type": "stream", "name": "stdout", "text": "awake\n"}
    assert [cell.outputs[-1]["data"]["text/plain"] for cell in notebook.cells[1:]] == ["8", "3"]
    assert history == ["a", "print('awake'); a + 5", "a = 3"]


def test_an_interrupt_ends_the_cell_and_leaves_the_variables(server: ServerProcess) -> None:
    with kernel(server, TORPOR_MACHINE="analysis") as (manager, client):
        assert execute(client, "a = 3")[0]["status"] == "ok"
        # After an error a kernel throws away for a moment what comes next, if it is not told otherwise.
        asked = client.execute("print('begun', flush=True)\nwhile True: pass", stop_on_error=False)
        _wait_for(client, asked, "stream")
        manager.interrupt_kernel()
        reply = reply_to(client, asked)
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert value(client, "a + 5") == "8"


def test_a_cell_asks_whoever_sits_at_the_notebook(server: ServerProcess) -> None:
    asked: list[dict[str, Any]] = []
    with kernel(server, TORPOR_MACHINE="analysis") as (_, client):

        def answer(message: dict[str, Any]) -> None:
            asked.append(message["content"])
            client.input({"Name? ": "Ada", "Key? ": "s3cret", "": "\x04"}[message["content"]["prompt"]])

        code = "import getpass, sys\nread = [input('Name? '), getpass.getpass('Key? '), sys.stdin.read()]"
        reply = client.execute_interactive(
            code, allow_stdin=True, stdin_hook=answer, output_hook=lambda _: None, timeout=SECONDS
        )
        assert reply["content"]["status"] == "ok"
        assert asked == [
            {"prompt": "Name? ", "password": False},
            {"prompt": "Key? ", "password": True},
            {"prompt": "", "password": False},
        ]
        assert value(client, "read") == "['Ada', 's3cret', '']"


def test_a_question_that_nobody_answers_can_be_interrupted(server: ServerProcess) -> None:
    with kernel(server, TORPOR_MACHINE="analysis") as (manager, client):
        asked = client.execute("input('First? ')", allow_stdin=True)
        assert client.get_stdin_msg(timeout=SECONDS)["content"]["prompt"] == "First? "
        manager.interrupt_kernel()
        reply = reply_to(client, asked)
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        client.input("too late")
        asked = client.execute("second = input('Second? ')", allow_stdin=True)
        assert client.get_stdin_msg(timeout=SECONDS)["content"]["prompt"] == "Second? "
        client.input("in time")
        assert reply_to(client, asked)["status"] == "ok"
        assert value(client, "second") == "'in time'"


def test_where_nobody_can_answer_the_code_is_told(server: ServerProcess) -> None:
    outputs = run_notebook(server, "input('Name? ')", "import getpass; getpass.getpass()")
    for shown in outputs:
        assert shown[-1]["ename"] == "EOFError"
        assert "nobody is at this machine's keyboard" in shown[-1]["evalue"]


def test_a_restart_by_hand_means_a_new_machine_and_the_old_one_stays(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as api:
        with kernel(server, TORPOR_MACHINE="analysis") as (manager, client):
            assert execute(client, "a = 3")[0]["status"] == "ok"
            old = api.machine("analysis").detail().name
            manager.restart_kernel()
            client.wait_for_ready(timeout=SECONDS)
            assert execute(client, "a")[0]["ename"] == "NameError"
        assert api.machine("analysis").detail().name != old
        assert api.machine(old).run("a + 5").value == "8"


def test_a_notebook_is_bound_to_a_machine_by_its_first_cell(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as api:
        api.machine("analysis").run("a = 3")
    with kernel(server) as (_, client):
        assert execute(client, "%torpor use analysis")[0]["status"] == "ok"
        assert value(client, "a + 5") == "8"
        assert execute(client, "%torpor use .hidden")[0]["ename"] == "InvalidRequest"
        assert "%torpor use NAME" in execute(client, "%torpor nonsense")[1][0][1]["traceback"][-1]


def test_a_frontend_gets_completions_from_the_machine(server: ServerProcess) -> None:
    with kernel(server, TORPOR_MACHINE="analysis") as (_, client):
        assert execute(client, "number = 3")[0]["status"] == "ok"
        found = client.complete("x = numb", 8, reply=True, timeout=SECONDS)["content"]
        assert (found["matches"], found["cursor_start"], found["cursor_end"]) == (["number"], 4, 8)


def test_a_frontend_learns_what_is_complete_and_what_was_run_before(server: ServerProcess) -> None:
    with kernel(server, TORPOR_MACHINE="analysis") as (_, client):
        assert execute(client, "number = 3")[0]["status"] == "ok"
        assert value(client, "number") == "3"
        asked = client.is_complete("for i in range(3):")
        assert reply_to(client, asked) == {"status": "incomplete", "indent": "    "}
        history = client.history(hist_access_type="tail", n=10, reply=True, timeout=SECONDS)["content"]["history"]
        assert [row[2] for row in history] == ["number = 3", "number"]


def test_a_server_that_is_not_there_is_said_in_the_cell_and_the_kernel_lives_on(server: ServerProcess) -> None:
    with kernel(server, TORPOR_MACHINE="analysis") as (_, client):
        server.stop()
        reply, _ = execute(client, "a = 3")
        assert (reply["status"], reply["ename"]) == ("error", "ServerUnreachable")
        server.start()
        assert value(client, "a = 3; a + 5") == "8"


def _wait_for(client: BlockingKernelClient, asked: str, kind: str) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=SECONDS)
        if message["msg_type"] == kind and message["parent_header"].get("msg_id") == asked:
            return
    raise AssertionError(f"no {kind} came")
