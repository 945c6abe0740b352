"""Code that was written for E2B's interpreter, on real machines."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import torpor
from torpor.compat.e2b import CommandExitException, CommandHandle, CommandResult, Sandbox

if TYPE_CHECKING:
    from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


@pytest.fixture
def client(server: ServerProcess) -> Iterator[torpor.Client]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client


def test_cells_answer_with_the_fields_that_e2b_has(client: torpor.Client) -> None:
    with Sandbox.create(metadata={"user": "42"}, envs={"GREETING": "hello"}, client=client) as sandbox:
        said: list[Any] = []
        execution = sandbox.run_code("import os; print(os.environ['GREETING']); a = 3; a", on_stdout=said.append)
        assert (execution.text, execution.logs.stdout, execution.error) == ("3", ["hello\n"], None)
        assert [str(message) for message in said] == ["hello\n"]
        plot = sandbox.run_code("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
        assert base64.b64decode(plot.results[0].png or "").startswith(b"\x89PNG")
        table = sandbox.run_code("import pandas; pandas.DataFrame({'x': [1]})")
        assert "<table" in (table.results[0].html or "")
        assert "html" in table.results[0].formats()
        failed = sandbox.run_code("1 / 0")
        assert failed.error is not None
        assert (failed.error.name, failed.error.value) == ("ZeroDivisionError", "division by zero")
        assert json.loads(failed.to_json())["results"] == []
        assert sandbox.machine.detail().tags == {"e2b-user": "42"}
    assert not sandbox.is_running()


def test_commands_end_with_their_code_and_can_be_waited_for(client: torpor.Client) -> None:
    with Sandbox(client=client) as sandbox:
        done = sandbox.commands.run("echo $WHO; echo careful >&2", envs={"WHO": "ada"})
        assert isinstance(done, CommandResult)
        assert (done.stdout, done.stderr, done.exit_code) == ("ada\n", "careful\n", 0)
        with pytest.raises(CommandExitException) as caught:
            sandbox.commands.run("exit 3")
        assert caught.value.exit_code == 3
        handle = sandbox.commands.run("sleep 1000", background=True)
        assert isinstance(handle, CommandHandle)
        assert sandbox.commands.kill(handle.pid)
        with pytest.raises(CommandExitException) as caught:
            handle.wait()
        assert caught.value.exit_code == 137


def test_a_paused_sandbox_is_connected_to_from_anywhere(server: ServerProcess, client: torpor.Client) -> None:
    sandbox = Sandbox.create(client=client)
    sandbox.run_code("a = 3")
    assert sandbox.pause()
    server.restart()
    assert Sandbox.connect(sandbox.sandbox_id, client=client).run_code("a + 5").text == "8"
    assert sandbox.kill()
    assert not sandbox.kill()
    with pytest.raises(torpor.MachineNotFound):
        Sandbox.connect(sandbox.sandbox_id, client=client)
    with pytest.raises(torpor.TorporError, match="java"):
        Sandbox.create(client=client).run_code("1", language="java")
