"""One turn of a conversation with an agent of LlamaIndex's, in a process of its own; its context is kept as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.workflow import Context

from torpor.tools.llama_index import PythonToolSpec


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


async def turn(kept: Path, first_id: int, *codes: str) -> list[Any]:
    agent = agent_of(scripted(*codes, first_id=first_id))
    context: Context[Any] = Context.from_dict(agent, json.loads(kept.read_text())) if kept.exists() else Context(agent)
    found = await results(agent, context)
    kept.write_text(json.dumps(context.to_dict()))
    return [result.tool_output.model_dump(mode="json") for result in found]


if __name__ == "__main__":
    kept, first_id, *codes = sys.argv[1:]
    print(json.dumps(asyncio.run(turn(Path(kept), int(first_id), *codes))))
