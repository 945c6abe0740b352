"""Running a model's code: progress while it runs, its end if the model cancels it, text and images in one answer."""

from __future__ import annotations

import base64

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from ..._async_machine import AsyncMachine, AsyncRunStream
from ..._errors import ApiError, ServerUnreachable
from ..._events import Stderr, Stdout
from .._rendering import Rendered, refusal, render

PROGRESS_SECONDS = 1.0
_LINE_CHARACTERS = 200


async def run(machine: AsyncMachine, code: str, timeout_seconds: float | None, context: Context) -> CallToolResult:
    """Run code, and tell whoever asked for progress the last line that it printed."""
    stream = machine.stream(code, timeout_seconds=timeout_seconds, queue=True)
    try:
        await _report(stream, context)
        return answer(render(await stream.result()))
    except anyio.get_cancelled_exc_class():
        if stream.seq is not None:
            with anyio.CancelScope(shield=True):
                await machine.interrupt(stream.seq)
        raise
    except (ApiError, ServerUnreachable) as error:
        raise told(error) from error


async def _report(stream: AsyncRunStream, context: Context) -> None:
    told_at, lines = anyio.current_time(), 0
    async for event in stream:
        if not isinstance(event, Stdout | Stderr):
            continue
        lines += event.text.count("\n")
        if anyio.current_time() - told_at >= PROGRESS_SECONDS:
            told_at = anyio.current_time()
            last = event.text.rstrip().rpartition("\n")[2]
            await context.report_progress(lines, message=last[-_LINE_CHARACTERS:])


def told(error: ApiError | ServerUnreachable) -> ToolError:
    """An error that the model reads, and can do something about."""
    rendered = refusal(error) if isinstance(error, ApiError) else Rendered(f"{error} {error.hint or ''}".strip())
    return ToolError(rendered.text)


def answer(rendered: Rendered) -> CallToolResult:
    """Text and images in one answer."""
    content: list[ContentBlock] = [TextContent(text=rendered.text)]
    content += [
        ImageContent(data=base64.b64encode(picture).decode("ascii"), mime_type="image/png")
        for picture in rendered.images
    ]
    return CallToolResult(content=content, is_error=rendered.is_error)
