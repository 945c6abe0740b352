"""One turn of a conversation with an agent of LangChain's, in a process of its own; the new messages as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict
from langgraph.checkpoint.sqlite import SqliteSaver

from torpor.tools.langchain import PythonTool


class Scripted(GenericFakeChatModel):
    """LangChain's own fake model; it takes tools, too."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Scripted:
        return self


def scripted(*codes: str, first_id: int) -> Scripted:
    """A model that asks for each of these codes in turn, and then says that it is done."""
    calls = [{"name": "python", "args": {"code": code}} for code in codes]
    asked = [AIMessage("", tool_calls=[{**call, "id": f"call_{first_id + n}"}]) for n, call in enumerate(calls)]
    messages: list[AIMessage] = [*asked, AIMessage("Done.")]
    return Scripted(messages=iter(messages))


def turn(database: str, thread: str, first_id: int, *codes: str) -> list[BaseMessage]:
    with SqliteSaver.from_conn_string(database) as checkpointer:
        agent = create_agent(scripted(*codes, first_id=first_id), [PythonTool()], checkpointer=checkpointer)
        answer = agent.invoke({"messages": [("user", "Go on.")]}, {"configurable": {"thread_id": thread}})
    return list(answer["messages"])


if __name__ == "__main__":
    database, thread, first_id, *codes = sys.argv[1:]
    print(json.dumps(messages_to_dict(turn(database, thread, int(first_id), *codes))))
