"""LangChain and LangGraph: the tool `python`, on the machine of the thread in which it is called.

>>> from langchain.agents import create_agent
>>> from torpor.tools.langchain import PythonTool
>>> agent = create_agent("anthropic:claude-sonnet-4-6", [PythonTool()], checkpointer=checkpointer)
>>> agent.invoke({"messages": [("user", "Plot sin(x).")]}, {"configurable": {"thread_id": "thread-42"}})
"""

from __future__ import annotations

import base64
from typing import Any, Literal

from langchain_core.messages import ToolMessage
from langchain_core.messages.content import create_image_block, create_text_block
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ArgsSchema, BaseTool
from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._client import Client
from .._machine import Machine
from .._reading import DEFAULT_TOKENS
from . import _python
from ._binding import default_client
from ._rendering import Rendered
from ._words import DESCRIPTION, PARAMETERS

_WORDS = PARAMETERS["properties"]


class Arguments(BaseModel):
    """What a model gives to the tool."""

    code: str = Field(description=_WORDS["code"]["description"])
    timeout_seconds: float | None = Field(default=None, description=_WORDS["timeout_seconds"]["description"])


class PythonTool(BaseTool):
    """Runs a model's code on the machine of the thread; text and figures come back as content blocks.

    The thread is that of the run's configuration (`{"configurable": {"thread_id": "thread-42"}}`), the key under which
    a checkpointer keeps the conversation. The id of the tool call is its idempotency key: when a run is resumed, or a
    node is tried again, code that ran is not run again. An error of the code makes a message of status `error`.
    `artifact` of the message is a dict with `machine`, the machine's name, and `seq`, the instruction's number.

    >>> PythonTool().invoke({"code": "3 + 5"}, {"configurable": {"thread_id": "thread-42"}})
    '8'
    """

    name: str = "python"
    description: str = DESCRIPTION
    args_schema: ArgsSchema | None = Arguments
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    _owner: Machine | AsyncMachine | Client | AsyncClient | None = PrivateAttr(default=None)
    _conversation: str | None = PrivateAttr(default=None)
    _timeout_seconds: float | None = PrivateAttr(default=None)
    _limit_tokens: int = PrivateAttr(default=DEFAULT_TOKENS)

    def __init__(
        self,
        machine: Machine | AsyncMachine | Client | AsyncClient | None = None,
        conversation: str | None = None,
        *,
        timeout_seconds: float | None = None,
        limit_tokens: int = DEFAULT_TOKENS,
        **settings: Any,
    ) -> None:
        """For whatever thread it is called in, or for one machine.

        Args:
            machine: A client, by default `Client()`, which asynchronous runs use in threads; an `AsyncClient` spares
                them. Or one machine, whatever the thread is.
            conversation: With a client, the id of the conversation where the run's configuration names no thread.
            timeout_seconds: After so much running time code is ended, unless the model asks for another time.
            limit_tokens: About how long an answer may be; of what is longer, beginning and end are kept.
            settings: Further fields of LangChain's `BaseTool`, such as `name` or `description`.
        """
        super().__init__(**({"handle_validation_error": _invalid} | settings))
        self._owner = machine
        self._conversation = conversation
        self._timeout_seconds = timeout_seconds
        self._limit_tokens = limit_tokens

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # An `InjectedToolCallId` would refuse every call that is not a whole `ToolCall`.
        positional, named = super()._to_args_and_kwargs(tool_input, tool_call_id)
        return positional, {**named, "tool_call_id": tool_call_id}

    def _run(
        self,
        code: str,
        timeout_seconds: float | None = None,
        *,
        config: RunnableConfig,
        tool_call_id: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        arguments = {"code": code, "timeout_seconds": timeout_seconds}
        return self._answer(self._tool(config).call(arguments, call_id=tool_call_id), tool_call_id)

    async def _arun(
        self,
        code: str,
        timeout_seconds: float | None = None,
        *,
        config: RunnableConfig,
        tool_call_id: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        arguments = {"code": code, "timeout_seconds": timeout_seconds}
        return self._answer(await self._tool(config).acall(arguments, call_id=tool_call_id), tool_call_id)

    def _tool(self, config: RunnableConfig) -> _python.PythonTool:
        owner = self._owner or default_client()
        conversation = thread_of(config) or self._conversation
        if conversation is None and isinstance(owner, Client | AsyncClient):
            raise ValueError(
                "Nothing says whose machine this is: call with the configuration "
                "{'configurable': {'thread_id': '...'}}, or make the tool with `conversation` or with a machine."
            )
        return _python.PythonTool(
            owner, conversation, timeout_seconds=self._timeout_seconds, limit_tokens=self._limit_tokens
        )

    def _answer(self, rendered: Rendered, tool_call_id: str | None) -> tuple[Any, dict[str, Any]]:
        content, artifact = content_of(rendered), {"machine": rendered.machine_name, "seq": rendered.seq}
        if not rendered.is_error or tool_call_id is None:
            return content, artifact
        message = ToolMessage(content, artifact=artifact, tool_call_id=tool_call_id, name=self.name, status="error")
        return message, artifact


def thread_of(config: RunnableConfig) -> str | None:
    """The thread that a run's configuration names."""
    thread = config.get("configurable", {}).get("thread_id")
    return None if thread is None else str(thread)


def content_of(rendered: Rendered) -> str | list[str | dict[str, Any]]:
    """A message's content: plain text, or blocks if there are figures."""
    if not rendered.images:
        return rendered.text
    return [{**create_text_block(rendered.text)}, *(_image(picture) for picture in rendered.images)]


def _image(picture: bytes) -> dict[str, Any]:
    return {**create_image_block(base64=base64.b64encode(picture).decode("ascii"), mime_type="image/png")}


def _invalid(error: ValidationError) -> str:
    """What is wrong with a model's arguments, in words that it can follow."""
    wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
    return f'The arguments do not fit ({wrong}): they read {{"code": "...", "timeout_seconds": null}}.'


__all__ = ["PythonTool"]
