"""LlamaIndex's published package with its own mock of a model, and a machine on real gVisor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import ToolOutput
from llama_index.core.tools.calling import call_tool
from llama_index.core.workflow import Context

import torpor
from torpor.tools import machine_of
from torpor.tools.llama_index import PythonToolSpec

PLOT = "a = 3\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\na"


def scripted(*codes: str, first_id: int = 1) -> MockFunctionCallingLLM:
    """LlamaIndex's own mock of a model: it asks for each of these codes in turn, and then says that it is done."""
    left = list(codes)

    def answer(messages: Sequence[ChatMessage], **settings: Any) -> ChatMessage:
        if not left:
            return ChatMessage(role="assistant", content="Done.")
        call_id = f"call_{first_id + len(codes) - len(left)}"
        call = ToolCallBlock(tool_name="python", tool_kwargs={"code": left.pop(0)}, tool_call_id=call_id)
        return ChatMessage(role="assistant", blocks=[call])

    return MockFunctionCallingLLM(response_generator=answer)


def agent_of(model: MockFunctionCallingLLM, **settings: Any) -> FunctionAgent:
    return FunctionAgent(tools=PythonToolSpec(**settings).to_tool_list(), llm=model, streaming=False)


async def results(agent: FunctionAgent, context: Context[Any], **asked: Any) -> list[ToolCallResult]:
    """Run it; what its tool returned."""
    handler = agent.run(**({"user_msg": "Go on."} | asked), ctx=context)
    found = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    await handler
    return found


def turn(kept: Path, model: MockFunctionCallingLLM) -> list[ToolOutput]:
    """A turn of a conversation whose context is kept in a file; what the tool returned in it."""
    before = json.loads(kept.read_text()) if kept.exists() else None
    found, after = asyncio.run(_turn(before, model))
    kept.write_text(json.dumps(after))
    return found


async def _turn(before: Any, model: MockFunctionCallingLLM) -> tuple[list[ToolOutput], Any]:
    agent = agent_of(model)
    context: Context[Any] = Context(agent) if before is None else Context.from_dict(agent, before)
    found = await results(agent, context)
    return [result.tool_output for result in found], context.to_dict()


def test_a_conversation_goes_on_after_its_machine_slept_and_its_process_was_replaced(
    tmp_path: Path, client: torpor.Client, replaced: Callable[..., str]
) -> None:
    kept = tmp_path / "context.json"
    (plotted,) = turn(kept, scripted(PLOT))
    text, figure = plotted.blocks
    assert isinstance(text, TextBlock)
    assert text.text == "[a figure]\n3"
    assert isinstance(figure, ImageBlock)
    assert figure.image_mimetype == "image/png"
    assert figure.resolve_image().read().startswith(b"\x89PNG")

    machine = client.machine(plotted.raw_output["machine"])
    machine.sleep()
    assert machine.detail().state == "asleep"
    assert replaced(str(kept)) == f"True False: 8 {{'machine': '{machine.name}', 'seq': 2}}"


def later(kept: str) -> str:
    """The same conversation in another process."""
    wrong, right = turn(Path(kept), scripted("a + undefined", "a + 5", first_id=2))
    assert "NameError: name 'undefined' is not defined" in wrong.content
    return f"{wrong.is_error} {right.is_error}: {right.content} {right.raw_output}"


async def test_a_step_that_a_restored_context_repeats_is_not_run_again(
    client: torpor.Client, started: Callable[[torpor.Machine], None]
) -> None:
    """The context is kept while the tool runs, as before a crash; what is restored from it repeats the tool call."""
    agent = agent_of(scripted("n = 0"))
    context: Context[Any] = Context(agent)
    (made,) = await results(agent, context)
    machine = client.machine(made.tool_output.raw_output["machine"])

    agent = agent_of(scripted("import time; time.sleep(2); n += 1; n", first_id=2))
    handler = agent.run(user_msg="Count.", ctx=context)
    await asyncio.to_thread(started, machine)
    kept = context.to_dict()
    await handler

    again = agent_of(scripted())
    restored: Context[Any] = Context.from_dict(again, kept)
    await restored.store.set("memory", ChatMemoryBuffer.from_defaults())  # which a context does not keep
    (counted,) = await results(again, restored)
    assert counted.tool_id == "call_2"
    assert counted.tool_output.content == "1"
    assert machine.run("n").value == "1"


async def test_a_context_has_its_machine_and_another_another() -> None:
    agent = agent_of(scripted())
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


def test_the_model_is_told_of_a_recovery_once(
    conversation: str, client: torpor.Client, recovered: Callable[[], None]
) -> None:
    recovered()
    (tool,) = PythonToolSpec(client, conversation).to_tool_list()
    told, again = [call_tool(tool, {"code": "kept"}).content for _ in range(2)]
    assert told.startswith("3\n[notice] ")
    assert again == "3"


def test_a_conversation_may_be_named_and_a_tool_called_by_hand(conversation: str, client: torpor.Client) -> None:
    (tool,) = PythonToolSpec(client, conversation).to_tool_list()
    assert call_tool(tool, {"code": "a = 3; a"}).content == "3"
    assert tool("a + 5").content == "8"
    assert [
        block.text for block in PythonToolSpec(client, conversation).python("a") if isinstance(block, TextBlock)
    ] == ["3"]
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


def test_the_guide(guide: Callable[..., str]) -> None:
    printed = guide("llama-index", {"code": "primes = [2, 3, 5]; len(primes)"}, {"code": "primes[-1]"})
    assert printed.split() == ["3", "5"]


def test_the_module_s_example(programs: Any) -> None:
    before = "from llama_index.llms.anthropic import Anthropic; llm = Anthropic(model='claude-sonnet-4-5')"
    programs.docstring(torpor.tools.llama_index, {"code": "primes = [2, 3, 5]; len(primes)"}, before=before)
