"""LangChain's own standard tests of tools, and what they leave out."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

import torpor
from torpor.tools import machine_of
from torpor.tools.langchain import PythonTool

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"


class Standard:
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return PythonTool

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"conversation": "langchain-standard"}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"code": "3 + 5"}


class TestUnit(Standard, ToolsUnitTests):
    pass


class TestIntegration(Standard, ToolsIntegrationTests):
    pass


def call(code: str, call_id: str, **more: Any) -> dict[str, Any]:
    return {"name": "python", "args": {"code": code, **more}, "id": call_id, "type": "tool_call"}


def thread(conversation: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": conversation}}


def test_a_thread_has_its_machine_and_another_thread_another(conversation: str, client: torpor.Client) -> None:
    tool = PythonTool()
    assert tool.invoke({"code": "a = 3; a"}, thread(conversation)) == "3"
    assert tool.invoke(call("a + 5", "1"), thread(conversation)).content == "8"
    assert "NameError" in tool.invoke({"code": "a"}, thread(conversation + "-other"))
    assert machine_of(client, conversation).run("a").value == "3"


def test_a_call_that_is_repeated_is_not_run_again(conversation: str) -> None:
    tool = PythonTool()
    tool.invoke({"code": "n = 0"}, thread(conversation))
    count = call("n += 1; n", "call_1")
    first = tool.invoke(count, thread(conversation))
    again = PythonTool().invoke(count, thread(conversation))
    assert (first.content, again.content) == ("1", "1")
    assert again.artifact == first.artifact
    assert tool.invoke(call("n += 1; n", "call_2"), thread(conversation)).content == "2"


def test_an_id_that_comes_back_with_other_code_is_another_call(conversation: str) -> None:
    tool = PythonTool()
    assert tool.invoke(call("a = 3; a", "call_0"), thread(conversation)).content == "3"
    assert tool.invoke(call("a + 5", "call_0"), thread(conversation)).content == "8"


def test_an_error_reaches_the_model_as_one_with_the_figures_before_it(
    conversation: str, client: torpor.Client
) -> None:
    message = PythonTool().invoke(call(f"{PLOT}\n1 / 0", "call_1"), thread(conversation))
    assert isinstance(message, ToolMessage)
    assert message.status == "error"
    assert message.artifact == {"machine": machine_of(client, conversation).detail().name, "seq": 0}
    text, figure = message.content_blocks
    assert text["type"] == "text"
    assert "ZeroDivisionError: division by zero" in text["text"]
    assert figure["type"] == "image"
    assert base64.b64decode(figure["base64"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", [{}, {"code": 7}, {"code": "1", "timeout_seconds": "soon"}])
def test_arguments_that_do_not_fit_are_answered(arguments: dict[str, Any], conversation: str) -> None:
    wrong = {"name": "python", "args": arguments, "id": "call_1", "type": "tool_call"}
    message = PythonTool().invoke(wrong, thread(conversation))
    assert message.status == "error"
    assert '{"code": "..."' in message.content


def test_without_a_thread_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="thread_id"):
        PythonTool().invoke({"code": "1"})


def test_one_tool_serves_one_loop_after_the_other(conversation: str) -> None:
    tool = PythonTool()
    for value in ("1", "2"):
        assert asyncio.run(tool.ainvoke({"code": value}, thread(conversation))) == value


async def test_many_threads_at_once_have_each_their_own_machine(conversation: str) -> None:
    tool = PythonTool()
    threads = [f"{conversation}-{number}" for number in range(6)]
    await asyncio.gather(*(tool.ainvoke({"code": f"a = {n}"}, thread(name)) for n, name in enumerate(threads)))
    found = await asyncio.gather(*(tool.ainvoke(call("a", "call_1"), thread(name)) for name in threads))
    assert [message.content for message in found] == [str(number) for number in range(6)]


async def test_a_cancelled_call_ends_its_code_and_nothing_else(conversation: str, client: torpor.Client) -> None:
    tool = PythonTool()
    await tool.ainvoke({"code": "a = 3"}, thread(conversation))
    running = asyncio.ensure_future(tool.ainvoke({"code": "import time\nwhile True: time.sleep(1)"}, thread(conversation)))
    machine = machine_of(client, conversation)
    while next(machine.history(limit=1)).state != "running":
        await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert machine.run("a", queue=True).value == "3"
    assert machine.instruction(1).ended_by == "interrupt"
