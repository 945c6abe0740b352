"""Anthropic's Messages: a tool's schema, a handler that gives `tool_result` blocks, and a tool for its tool runner.

>>> from anthropic import Anthropic
>>> python = MessagesTool(torpor.Client(), conversation="thread-42")
>>> message = Anthropic().messages.create(model=MODEL, messages=messages, tools=[python.schema], max_tokens=4096)
>>> messages.append({"role": "assistant", "content": message.content})
>>> messages.append({"role": "user", "content": python.results(message)})

Needs `pip install 'torpor[anthropic]'`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._client import Client
from .._machine import Machine
from ._python import PythonTool
from ._rendering import Rendered
from ._words import DESCRIPTION, INSTRUCTIONS, PARAMETERS

if TYPE_CHECKING:
    from anthropic.lib.tools import BetaAsyncFunctionTool, BetaFunctionTool
    from anthropic.types import Message, ToolParam, ToolResultBlockParam, ToolUseBlock

__all__ = ["INSTRUCTIONS", "MessagesTool", "beta_async_python_tool", "beta_python_tool"]

_SCHEMA = {"type": "object", "properties": PARAMETERS["properties"], "required": ["code"]}


class MessagesTool:
    """The tool `python` for the Messages API: text and images in one `tool_result`."""

    def __init__(
        self,
        machine: Machine | AsyncMachine | Client | AsyncClient,
        conversation: str | None = None,
        **options: Any,
    ) -> None:
        """Arguments as for `torpor.tools.PythonTool`."""
        self.tool: PythonTool = PythonTool(machine, conversation, **options)

    @property
    def schema(self) -> ToolParam:
        """For `tools` of a request."""
        return {"name": self.tool.name, "description": DESCRIPTION, "input_schema": _SCHEMA}

    def results(self, message: Message) -> list[ToolResultBlockParam]:
        """Run every call to `python` in a message; the content of the user's message that answers it.

        Each call runs once, however often this is done with the same message. Raises as `PythonTool.call` does.
        """
        return [_result(block.id, self.tool.call(_input(block), call_id=block.id)) for block in self._calls(message)]

    async def aresults(self, message: Message) -> list[ToolResultBlockParam]:
        """The asynchronous twin of `results`."""
        blocks = self._calls(message)
        rendered = [await self.tool.acall(_input(block), call_id=block.id) for block in blocks]
        return [_result(block.id, each) for block, each in zip(blocks, rendered, strict=True)]

    def _calls(self, message: Message) -> list[ToolUseBlock]:
        return [block for block in message.content if block.type == "tool_use" and block.name == self.tool.name]


def beta_python_tool(
    machine: Machine | Client, conversation: str | None = None, **options: Any
) -> BetaFunctionTool[Any]:
    """The tool `python` for `client.beta.messages.tool_runner(tools=[...])`. Arguments as for `PythonTool`."""
    from anthropic import beta_tool  # noqa: PLC0415 - an extra, which `MessagesTool` does without
    from anthropic.lib.tools import ToolError  # noqa: PLC0415

    tool = PythonTool(machine, conversation, **options)

    def python(code: str, timeout_seconds: float | None = None) -> Any:
        rendered = tool.call({"code": code, "timeout_seconds": timeout_seconds})
        if rendered.is_error:
            raise ToolError(_content(rendered))
        return _content(rendered)

    return beta_tool(python, name=tool.name, description=DESCRIPTION, input_schema=_SCHEMA)


def beta_async_python_tool(
    machine: Machine | AsyncMachine | Client | AsyncClient, conversation: str | None = None, **options: Any
) -> BetaAsyncFunctionTool[Any]:
    """The asynchronous twin of `beta_python_tool`."""
    from anthropic import beta_async_tool  # noqa: PLC0415
    from anthropic.lib.tools import ToolError  # noqa: PLC0415

    tool = PythonTool(machine, conversation, **options)

    async def python(code: str, timeout_seconds: float | None = None) -> Any:
        rendered = await tool.acall({"code": code, "timeout_seconds": timeout_seconds})
        if rendered.is_error:
            raise ToolError(_content(rendered))
        return _content(rendered)

    return beta_async_tool(python, name=tool.name, description=DESCRIPTION, input_schema=_SCHEMA)


def _input(block: ToolUseBlock) -> dict[str, Any]:
    return dict(block.input) if isinstance(block.input, dict) else {}


def _result(call_id: str, rendered: Rendered) -> ToolResultBlockParam:
    return {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": _content(rendered),
        "is_error": rendered.is_error,
    }


def _content(rendered: Rendered) -> list[Any]:
    return [
        {"type": "text", "text": rendered.text},
        *(
            {
                "type": "image",
                "source": {
                    "type": "base64",
                    "media_type": "image/png",
                    "data": base64.b64encode(image).decode("ascii"),
                },
            }
            for image in rendered.images
        ),
    ]
