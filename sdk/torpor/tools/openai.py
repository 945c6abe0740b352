"""OpenAI's Responses and Chat Completions: schemas, and handlers that run the calls and give what to append.

>>> from openai import OpenAI
>>> python = ResponsesTool(torpor.Client(), conversation="thread-42")
>>> response = OpenAI().responses.create(model=MODEL, input=messages, tools=[python.schema], instructions=INSTRUCTIONS)
>>> messages += response.output + python.outputs(response)

Needs `pip install 'torpor[openai]'`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._client import Client
from .._machine import Machine
from ._python import PythonTool
from ._rendering import Rendered
from ._words import DESCRIPTION, INSTRUCTIONS, PARAMETERS

if TYPE_CHECKING:
    from openai.types.chat import (
        ChatCompletionContentPartParam,
        ChatCompletionFunctionToolParam,
        ChatCompletionMessage,
        ChatCompletionMessageParam,
    )
    from openai.types.responses import (
        FunctionToolParam,
        Response,
        ResponseFunctionCallOutputItemListParam,
        ResponseFunctionToolCall,
        ResponseInputItemParam,
    )
    from openai.types.responses.response_input_param import FunctionCallOutput

__all__ = ["INSTRUCTIONS", "ChatTool", "ResponsesTool"]


class _Tool:
    """What both have in common: a machine, or a client with the id of the conversation whose machine it is."""

    def __init__(
        self,
        machine: Machine | AsyncMachine | Client | AsyncClient,
        conversation: str | None = None,
        **options: Any,
    ) -> None:
        """Arguments as for `torpor.tools.PythonTool`."""
        self.tool: PythonTool = PythonTool(machine, conversation, **options)


class ResponsesTool(_Tool):
    """The tool `python` for the Responses API, whose outputs may hold text and images."""

    @property
    def schema(self) -> FunctionToolParam:
        """For `tools` of a request."""
        return {
            "type": "function",
            "name": self.tool.name,
            "description": DESCRIPTION,
            "parameters": PARAMETERS,
            "strict": True,
        }

    def outputs(self, response: Response) -> list[ResponseInputItemParam]:
        """Run every call to `python` in a response; what to append to the input behind the response's own output.

        Each call runs once, however often this is done with the same response. Raises as `PythonTool.call` does.
        """
        return [
            _output(call, self.tool.call(call.arguments, call_id=call.call_id)) for call in self._calls(response.output)
        ]

    async def aoutputs(self, response: Response) -> list[ResponseInputItemParam]:
        """The asynchronous twin of `outputs`."""
        return [
            _output(call, await self.tool.acall(call.arguments, call_id=call.call_id))
            for call in self._calls(response.output)
        ]

    def _calls(self, output: Iterable[Any]) -> list[ResponseFunctionToolCall]:
        return [item for item in output if item.type == "function_call" and item.name == self.tool.name]


class ChatTool(_Tool):
    """The tool `python` for Chat Completions, whose tool messages hold text only: images follow in a user's message."""

    @property
    def schema(self) -> ChatCompletionFunctionToolParam:
        """For `tools` of a request."""
        return {
            "type": "function",
            "function": {
                "name": self.tool.name,
                "description": DESCRIPTION,
                "parameters": PARAMETERS,
                "strict": True,
            },
        }

    def messages(self, message: ChatCompletionMessage) -> list[ChatCompletionMessageParam]:
        """Run every call to `python` in an assistant's message; the messages to append behind it.

        Each call runs once, however often this is done with the same message. Raises as `PythonTool.call` does.
        """
        rendered = [
            (call_id, self.tool.call(arguments, call_id=call_id)) for call_id, arguments in self._calls(message)
        ]
        return _messages(rendered)

    async def amessages(self, message: ChatCompletionMessage) -> list[ChatCompletionMessageParam]:
        """The asynchronous twin of `messages`."""
        calls = self._calls(message)
        rendered = [await self.tool.acall(arguments, call_id=call_id) for call_id, arguments in calls]
        return _messages([(call_id, each) for (call_id, _), each in zip(calls, rendered, strict=True)])

    def _calls(self, message: ChatCompletionMessage) -> list[tuple[str, str]]:
        return [
            (call.id, call.function.arguments)
            for call in message.tool_calls or ()
            if call.type == "function" and call.function.name == self.tool.name
        ]


def _output(call: ResponseFunctionToolCall, rendered: Rendered) -> ResponseInputItemParam:
    output: FunctionCallOutput = {"type": "function_call_output", "call_id": call.call_id, "output": rendered.text}
    if rendered.images:
        parts: ResponseFunctionCallOutputItemListParam = [{"type": "input_text", "text": rendered.text}]
        for image in rendered.images:
            parts.append({"type": "input_image", "image_url": _url(image), "detail": "auto"})
        output["output"] = parts
    return output


def _messages(rendered: list[tuple[str, Rendered]]) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = []
    parts: list[ChatCompletionContentPartParam] = [{"type": "text", "text": "The figures that the code has shown:"}]
    for call_id, each in rendered:
        messages.append({"role": "tool", "tool_call_id": call_id, "content": each.text})
        parts += map(_picture, each.images)
    if len(parts) > 1:
        messages.append({"role": "user", "content": parts})
    return messages


def _picture(image: bytes) -> ChatCompletionContentPartParam:
    return {"type": "image_url", "image_url": {"url": _url(image)}}


def _url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"
