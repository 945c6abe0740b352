"""What a tool answers: text and images, data for programs beside it, errors that a model can do something about."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import BaseModel

from ..._errors import ApiError, MachineNotFound, TorporError
from .._rendering import Rendered, refusal

T = TypeVar("T")


def says_how_to_read_on(seq: int) -> Callable[[int], str]:
    """What a model is told of characters that are left out of an instruction's output from a position on."""
    return lambda position: f"`read_output` with `instruction` {seq} and `start` {position} shows them"


def answer(rendered: Rendered) -> CallToolResult:
    """Text and images in one answer."""
    content: list[ContentBlock] = [TextContent(text=rendered.text)]
    content += [
        ImageContent(data=base64.b64encode(picture).decode("ascii"), mime_type="image/png")
        for picture in rendered.images
    ]
    return CallToolResult(content=content, is_error=rendered.is_error)


def structured(text: str, data: BaseModel) -> CallToolResult:
    """A text for the model, and the same as data for the program around it."""
    return CallToolResult(content=[TextContent(text=text)], structured_content=data.model_dump(mode="json"))


async def asked(work: Callable[[], Awaitable[T]]) -> T:
    """What the server says. What it refuses becomes a `ToolError`, which the model reads."""
    try:
        return await work()
    except TorporError as error:
        raise ToolError(words(error)) from error


async def read(work: Callable[[], Awaitable[T]]) -> T:
    """The same for a resource: `ResourceError`."""
    try:
        return await work()
    except TorporError as error:
        raise ResourceError(words(error)) from error


def words(error: TorporError) -> str:
    """An error as a model reads it: what happened, and what to do."""
    if isinstance(error, MachineNotFound):
        return f"{error.message} `list_machines` shows which there are."
    if isinstance(error, ApiError):
        return refusal(error).text
    return f"{error} {error.hint or ''}".strip()
