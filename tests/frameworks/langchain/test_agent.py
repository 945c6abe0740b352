"""Conversations of LangChain's agents, each turn in a process of its own."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, messages_from_dict
from langgraph.checkpoint.memory import InMemorySaver
from tests.frameworks.langchain.talk import Scripted
from tests.frameworks.scripted import ScriptedServer

import torpor
from torpor.tools import machine_of
from torpor.tools.langchain import PythonTool

PLOT = "a = 3\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\na"
TALK = Path(__file__).with_name("talk.py")


def talk(folder: Path, thread: str, first_id: int, *codes: str) -> list[ToolMessage]:
    """A turn in a new process; the tool's messages of the whole conversation."""
    command = [sys.executable, "-P", str(TALK), str(folder / "talk.db"), thread, str(first_id), *codes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [message for message in messages_from_dict(json.loads(done.stdout)) if isinstance(message, ToolMessage)]


def test_a_conversation_goes_on_after_its_machine_slept_and_its_process_was_replaced(
    tmp_path: Path, conversation: str, client: torpor.Client
) -> None:
    plotted = talk(tmp_path, conversation, 1, PLOT)[-1]
    text, figure = plotted.content_blocks
    assert text["type"] == "text"
    assert text["text"] == "[a figure]\n3"
    assert figure["type"] == "image"
    assert base64.b64decode(figure["base64"]).startswith(b"\x89PNG")

    machine = machine_of(client, conversation)
    machine.sleep()
    assert machine.detail().state == "asleep"

    messages = talk(tmp_path, conversation, 2, "a + undefined", "a + 5")
    assert [message.status for message in messages] == ["success", "error", "success"]
    assert "NameError: name 'undefined' is not defined" in str(messages[1].content)
    assert messages[2].content == "8"


def test_a_run_that_died_behind_its_tool_call_is_resumed_without_running_it_again(
    conversation: str, client: torpor.Client
) -> None:
    """The node is tried again, as LangGraph does it, after the code has run and before its answer was kept."""
    fails = iter([True, False])

    class DiesOnce(PythonTool):
        def invoke(self, input: Any, config: Any = None, **named: Any) -> Any:
            answer = super().invoke(input, config, **named)
            if next(fails):
                raise ConnectionResetError("The process died here.")
            return answer

    call = {"name": "python", "args": {"code": "n = globals().get('n', 0) + 1; n"}, "id": "call_1"}
    model = Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Done.")]))
    agent = create_agent(model, [DiesOnce()], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": conversation}}
    with pytest.raises(ConnectionResetError):
        agent.invoke({"messages": [HumanMessage("Count.")]}, config)
    answer = agent.invoke(None, config)
    assert answer["messages"][-2].content == "1"
    assert machine_of(client, conversation).run("n").value == "1"


def test_figures_and_errors_reach_anthropics_wire(model: ScriptedServer, conversation: str) -> None:
    model.codes = [PLOT, "1 / 0"]
    chat = ChatAnthropic(model_name="claude", **connection(model))
    agent = create_agent(chat, [PythonTool()], checkpointer=InMemorySaver())
    for _ in range(2):
        agent.invoke({"messages": [HumanMessage("Go on.")]}, {"configurable": {"thread_id": conversation}})
    (figure,) = model.images
    assert base64.b64decode(figure).startswith(b"\x89PNG")
    (result,) = model.requests[-1]["messages"][-1]["content"]
    assert (result["type"], result["is_error"]) == ("tool_result", True)
    assert model.requests[0]["tools"][0]["name"] == "python"


def connection(model: ScriptedServer) -> dict[str, Any]:
    return {"base_url": model.environment["ANTHROPIC_BASE_URL"], "api_key": "none", "timeout": 60, "stop": None}
