"""LangChain's published packages: its own standard tests, agents with its fake model, and a machine on real gVisor."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

import torpor
from torpor.tools import machine_of
from torpor.tools.langchain import PythonTool

PLOT = "a = 3\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\na"


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
    """LangChain's own."""


class TestIntegration(Standard, ToolsIntegrationTests):
    """LangChain's own."""


class Scripted(GenericFakeChatModel):
    """LangChain's fake model; it takes tools, too."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self


def scripted(*codes: str, first_id: int = 1) -> Scripted:
    """A model that asks for each of these codes in turn, and then says that it is done."""
    asked = [AIMessage("", tool_calls=[call(code, f"call_{first_id + n}")]) for n, code in enumerate(codes)]
    return Scripted(messages=iter([*asked, AIMessage("Done.")]))


def call(code: str, call_id: str, **more: Any) -> Any:
    return {"name": "python", "args": {"code": code, **more}, "id": call_id, "type": "tool_call"}


def thread(conversation: str) -> Any:
    return {"configurable": {"thread_id": conversation}}


def turn(database: str, conversation: str, model: Scripted) -> list[ToolMessage]:
    """A turn of a conversation that is kept in a file; all that the tool said in it."""
    with SqliteSaver.from_conn_string(database) as checkpointer:
        agent = create_agent(model, [PythonTool()], checkpointer=checkpointer)
        answer = agent.invoke({"messages": [HumanMessage("Go on.")]}, thread(conversation))
    return [message for message in answer["messages"] if isinstance(message, ToolMessage)]


def test_a_conversation_goes_on_after_its_machine_slept_and_its_process_was_replaced(
    tmp_path: Path, conversation: str, later: Callable[..., str]
) -> None:
    database = str(tmp_path / "talk.db")
    (plotted,) = turn(database, conversation, scripted(PLOT))
    text, figure = plotted.content_blocks
    assert text["type"] == "text"
    assert text["text"] == "[a figure]\n3"
    assert figure["type"] == "image"
    assert base64.b64decode(figure["base64"]).startswith(b"\x89PNG")
    assert later(database) == "success error success: 8"


def later(conversation: str, database: str) -> str:
    """The same conversation in another process."""
    messages = turn(database, conversation, scripted("a + undefined", "a + 5", first_id=2))
    assert "NameError: name 'undefined' is not defined" in str(messages[1].content)
    return f"{' '.join(message.status for message in messages)}: {messages[-1].content}"


def test_a_run_that_died_behind_its_tool_call_is_resumed_without_running_it_again(
    conversation: str, client: torpor.Client
) -> None:
    """LangGraph tries the node again, after the code has run and before its answer was kept."""
    fails = iter([True, False])

    class DiesOnce(PythonTool):
        def invoke(self, input: Any, config: Any = None, **named: Any) -> Any:
            answer = super().invoke(input, config, **named)
            if next(fails):
                raise ConnectionResetError("The process died here.")
            return answer

    model = scripted("n = globals().get('n', 0) + 1; n")
    agent = create_agent(model, [DiesOnce()], checkpointer=InMemorySaver())
    with pytest.raises(ConnectionResetError):
        agent.invoke({"messages": [HumanMessage("Count.")]}, thread(conversation))
    answer = agent.invoke(None, thread(conversation))
    assert answer["messages"][-2].content == "1"
    assert machine_of(client, conversation).run("n").value == "1"


def test_a_thread_has_its_machine_and_another_thread_another(conversation: str, client: torpor.Client) -> None:
    tool = PythonTool()
    assert tool.invoke({"code": "a = 3; a"}, thread(conversation)) == "3"
    assert tool.invoke(call("a + 5", "1"), thread(conversation)).content == "8"
    assert "NameError" in tool.invoke({"code": "a"}, thread(f"{conversation}-other"))
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


def test_the_model_is_told_of_a_recovery_once(conversation: str, recovered: Callable[[], None]) -> None:
    recovered()
    told, again = [str(PythonTool().invoke(call("kept", id_), thread(conversation)).content) for id_ in ("1", "2")]
    assert told.startswith("3\n[notice] ")
    assert again == "3"


def test_an_error_reaches_the_model_as_one_with_the_figures_before_it(conversation: str, client: torpor.Client) -> None:
    message = PythonTool().invoke(call(f"{PLOT}\n1 / 0", "call_1"), thread(conversation))
    assert isinstance(message, ToolMessage)
    assert message.status == "error"
    assert message.artifact == {"machine": machine_of(client, conversation).detail().name, "seq": 0}
    text, figure = message.content_blocks
    assert text["type"] == "text"
    assert "ZeroDivisionError: division by zero" in text["text"]
    assert figure["type"] == "image"


def test_figures_and_errors_reach_anthropics_wire(model: Any, conversation: str) -> None:
    used = {"type": "tool_use", "id": "toolu_1", "name": "python", "input": {"code": f"{PLOT}\n1 / 0"}}
    model.answers = [anthropic(used), anthropic({"type": "text", "text": "Done."})]
    chat = ChatAnthropic(model_name="scripted", base_url=model.url, api_key="none", timeout=60, stop=None)
    create_agent(chat, [PythonTool()]).invoke({"messages": [HumanMessage("Go on.")]}, thread(conversation))
    (result,) = model.requests[-1]["messages"][-1]["content"]
    assert (result["type"], result["is_error"]) == ("tool_result", True)
    text, figure = result["content"]
    assert "ZeroDivisionError" in text["text"]
    assert base64.b64decode(figure["source"]["data"]).startswith(b"\x89PNG")
    (described,) = model.requests[0]["tools"]
    assert (described["name"], described["input_schema"]["required"]) == ("python", ["code"])


def anthropic(*content: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": list(content),
        "stop_reason": "tool_use" if content[-1]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


@pytest.mark.parametrize("arguments", [{}, {"code": 7}, {"code": "1", "timeout_seconds": "soon"}])
def test_arguments_that_do_not_fit_are_answered(arguments: dict[str, Any], conversation: str) -> None:
    wrong: Any = {"name": "python", "args": arguments, "id": "call_1", "type": "tool_call"}
    message = PythonTool().invoke(wrong, thread(conversation))
    assert message.status == "error"
    assert '{"code": "..."' in message.content


def test_without_a_thread_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="thread_id"):
        PythonTool().invoke({"code": "1"})


def test_one_tool_serves_one_event_loop_after_the_other(conversation: str) -> None:
    tool = PythonTool()
    for value in ("1", "2"):
        assert asyncio.run(tool.ainvoke({"code": value}, thread(conversation))) == value


async def test_many_threads_at_once_have_each_their_own_machine(conversation: str) -> None:
    async with torpor.AsyncClient() as client:
        tool = PythonTool(client)
        threads = [f"{conversation}-{number}" for number in range(6)]
        await asyncio.gather(*(tool.ainvoke({"code": f"a = {n}"}, thread(name)) for n, name in enumerate(threads)))
        found = await asyncio.gather(*(tool.ainvoke(call("a", "call_1"), thread(name)) for name in threads))
    assert [message.content for message in found] == [str(number) for number in range(6)]


async def test_a_cancelled_call_ends_its_code_and_nothing_else(
    conversation: str, client: torpor.Client, started: Callable[[torpor.Machine], None]
) -> None:
    tool, machine = PythonTool(), machine_of(client, conversation)
    machine.run("a = 3")
    endless = {"code": "import time\nwhile True: time.sleep(1)"}
    running = asyncio.ensure_future(tool.ainvoke(endless, thread(conversation)))
    await asyncio.to_thread(started, machine)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert machine.run("a", queue=True).value == "3"
    assert machine.instruction(1).ended_by == "interrupt"


def test_the_guide(guide: Callable[..., str]) -> None:
    printed = guide("langchain", {"code": "primes = [2, 3, 5]; len(primes)"}, {"code": "primes[-1]"})
    assert printed.split() == ["3", "5"]


def test_the_module_s_example(programs: Any) -> None:
    before = "from langgraph.checkpoint.memory import InMemorySaver; checkpointer = InMemorySaver()"
    programs.docstring(torpor.tools.langchain, {"code": "primes = [2, 3, 5]; len(primes)"}, before=before)
