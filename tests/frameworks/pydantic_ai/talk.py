"""One turn of a conversation with an agent of Pydantic AI's, in a process of its own; all messages as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from torpor.tools.pydantic_ai import PythonToolset


def scripted(*codes: str, first_id: int) -> FunctionModel:
    """A model that asks for each of these codes in turn, and then says that it is done."""
    left = list(codes)

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if not left:
            return ModelResponse([TextPart("Done.")])
        call_id = f"call_{first_id + len(codes) - len(left)}"
        return ModelResponse([ToolCallPart("python", {"code": left.pop(0)}, tool_call_id=call_id)])

    return FunctionModel(answer)


def turn(kept: Path, conversation: str, first_id: int, *codes: str) -> None:
    history = ModelMessagesTypeAdapter.validate_json(kept.read_bytes()) if kept.exists() else None
    agent = Agent(scripted(*codes, first_id=first_id), toolsets=[PythonToolset[None]()])
    known = {} if history else {"conversation_id": conversation}
    kept.write_bytes(agent.run_sync("Go on.", message_history=history, **known).all_messages_json())


if __name__ == "__main__":
    kept, conversation, first_id, *codes = sys.argv[1:]
    turn(Path(kept), conversation, int(first_id), *codes)
