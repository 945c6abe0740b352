"""Agents of LlamaIndex with the tool, and conversations of which each turn is in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.tools.calling import call_tool
from llama_index.core.workflow import Context
from tests.frameworks.llama_index.talk import agent_of, results, scripted

import torpor
from torpor.tools import machine_of
from torpor.tools.llama_index import CONVERSATION, PythonToolSpec

PLOT = "a = 3\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\na"
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # in LlamaIndex itself

TALK = Path(__file__).with_name("talk.py")


def talk(kept: Path, first_id: int, *codes: str) -> list[dict[str, Any]]:
    """A turn in a new process; what the tool returned in it."""
    command = [sys.executable, "-P", str(TALK), str(kept), str(first_id), *codes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def test_a_conversation_goes_on_after_its_machine_slept_and_its_process_was_replaced(
    tmp_path: Path, client: torpor.Client
) -> None:
    kept = tmp_path / "context.json"
    (plotted,) = talk(kept, 1, PLOT)
    text, figure = plotted["blocks"]
    assert text["text"] == "[a figure]\n3"
    assert (figure["block_type"], figure["image_mimetype"]) == ("image", "image/png")
    assert base64.b64decode(figure["image"]).startswith(b"\x89PNG")

    machine = client.machine(plotted["raw_output"]["machine"])
    machine.sleep()
    assert machine.detail().state == "asleep"

    wrong, right = talk(kept, 2, "a + undefined", "a + 5")
    assert wrong["is_error"]
    assert "NameError: name 'undefined' is not defined" in wrong["blocks"][0]["text"]
    assert right["blocks"][0]["text"] == "8"
    assert right["raw_output"] == {"machine": machine.name, "seq": 2}


async def test_a_step_that_a_restored_context_repeats_is_not_run_again(client: torpor.Client) -> None:
    """The context is kept while the tool runs, as after a crash; what is restored from it repeats the tool call."""
    agent = agent_of(scripted("n = globals().get('n', 0) + 1; import time; time.sleep(2); n"))
    context: Context[Any] = Context(agent)
    handler = agent.run(user_msg="Count.", ctx=context)
    while not (machine := await machine_if_running(context, client)):
        await asyncio.sleep(0.05)
    kept = context.to_dict()
    await handler

    again = agent_of(scripted(first_id=2))
    restored = Context.from_dict(again, kept)
    (counted,) = await results(again, restored)
    assert counted.tool_id == "call_1"
    assert counted.tool_output.content == "1"
    assert machine.run("n").value == "1"


async def machine_if_running(context: Context[Any], client: torpor.Client) -> torpor.Machine | None:
    conversation = await context.store.get(CONVERSATION, default=None)
    if conversation is None:
        return None
    machine = machine_of(client, conversation)
    newest = next(machine.history(limit=1), None)
    return machine if newest is not None and newest.state == "running" else None


async def test_a_context_has_its_machine_and_another_another() -> None:
    agent = agent_of(scripted("a = 3", "a", "a", first_id=1))
    _, mine = await results(agent_of(scripted("a = 3", "a + 5")), Context(agent))
    (other,) = await results(agent_of(scripted("a")), Context(agent))
    assert mine.tool_output.content == "8"
    assert "NameError" in other.tool_output.content
    assert other.tool_output.is_error


async def test_figures_before_an_error_are_shown_with_it() -> None:
    agent = agent_of(scripted(f"{PLOT}\n1 / 0"))
    (failed,) = await results(agent, Context(agent))
    text, figure = failed.tool_output.blocks
    assert failed.tool_output.is_error
    assert isinstance(text, TextBlock)
    assert "ZeroDivisionError: division by zero" in text.text
    assert isinstance(figure, ImageBlock)


async def test_arguments_that_do_not_fit_are_answered(conversation: str) -> None:
    (tool,) = PythonToolSpec(conversation=conversation).to_tool_list()
    output = await tool.acall(code=7)
    assert output.is_error
    assert '{"code": "..."}' in output.content


def test_a_conversation_may_be_named_and_a_tool_called_by_hand(conversation: str, client: torpor.Client) -> None:
    (tool,) = PythonToolSpec(client, conversation).to_tool_list()
    assert call_tool(tool, {"code": "a = 3; a"}).content == "3"
    assert tool("a + 5").content == "8"
    assert [block.text for block in PythonToolSpec(client, conversation).python("a") if isinstance(block, TextBlock)] == ["3"]
    assert machine_of(client, conversation).run("a").value == "3"


def test_without_a_conversation_it_says_what_is_missing() -> None:
    (tool,) = PythonToolSpec().to_tool_list()
    with pytest.raises(ValueError, match="conversation"):
        tool(code="1")


async def test_many_contexts_at_once_have_each_their_own_machine() -> None:
    async with torpor.AsyncClient() as client:

        async def ask(number: int) -> str:
            agent = agent_of(scripted(f"a = {number}", "a"), machine=client)
            return (await results(agent, Context(agent)))[-1].tool_output.content

        assert await asyncio.gather(*map(ask, range(6))) == [str(number) for number in range(6)]
