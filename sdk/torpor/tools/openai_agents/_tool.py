"""The function tool `python`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from agents import FunctionTool, ToolOutputImage, ToolOutputText, UserError
from agents.tool_context import ToolContext

from ..._async_client import AsyncClient
from ..._async_machine import AsyncMachine
from ..._client import Client
from ..._machine import Machine
from .._binding import default_client
from .._python import PythonTool
from .._rendering import Rendered
from .._words import DESCRIPTION, PARAMETERS


def python_tool(
    machine: Machine | AsyncMachine | Client | AsyncClient | None = None,
    conversation: str | Callable[[ToolContext[Any]], str] | None = None,
    **options: Any,
) -> FunctionTool:
    """The tool `python` on the machine of the conversation; text and figures come back in one output.

    The id of the tool call is its idempotency key: when a run is resumed from its state, code that ran is not run
    again. An error of the code is in the output. What no model can mend, such as no server, ends the run.

    Args:
        machine: A client, by default `Client()`, which is used in threads; an `AsyncClient` spares them. Or one
            machine, whatever the conversation is.
        conversation: With a client, whose machine it is; by default the run's `RunConfig(group_id="thread-42")`. A
            function of the tool's context may say it: `lambda context: context.context.user`.
        options: `timeout_seconds` and `limit_tokens`, as for `torpor.tools.PythonTool`.

    >>> Agent("Analyst", tools=[python_tool()])
    """

    async def invoke(context: ToolContext[Any], arguments: str) -> Any:
        owner = machine or default_client()
        tool = PythonTool(owner, _conversation(context, owner, conversation), **options)
        return _output(await tool.acall(arguments, call_id=context.tool_call_id))

    return FunctionTool(
        name=PythonTool.name, description=DESCRIPTION, params_json_schema=PARAMETERS, on_invoke_tool=invoke
    )


def _conversation(
    context: ToolContext[Any],
    owner: Machine | AsyncMachine | Client | AsyncClient,
    conversation: str | Callable[[ToolContext[Any]], str] | None,
) -> str | None:
    if conversation is not None:
        return conversation if isinstance(conversation, str) else conversation(context)
    group: str | None = None if context.run_config is None else context.run_config.group_id
    if group is None and isinstance(owner, Client | AsyncClient):
        raise UserError(
            "Nothing says whose machine this is: run with RunConfig(group_id='...'), the id of the conversation, or "
            "make the tool with `conversation` or with a machine."
        )
    return group


def _output(rendered: Rendered) -> Any:
    if not rendered.images:
        return rendered.text
    urls = (f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}" for image in rendered.images)
    return [ToolOutputText(text=rendered.text), *(ToolOutputImage(image_url=url, detail="auto") for url in urls)]
