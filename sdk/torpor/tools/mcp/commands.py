"""The tool that executes shell commands."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from ..._command_models import CommandResult
from ..._reading import CHARACTERS_A_TOKEN, DEFAULT_TOKENS, cut, whole_text_of_command
from .._ending import end_command_async
from .._rendering import Rendered
from .answers import answer, asked, says_how_to_read_on
from .running import follow
from .sources import NewMachineArgument, Source


def add_commands(server: MCPServer, source: Source) -> None:
    """Add the tool."""

    @server.tool(
        title="Run command",
        description="Execute a shell command on the machine, also while Python code runs there. It sees the same files "
        "and gives what it prints, and its exit code unless that is 0. There is no network.",
        annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False),
    )
    async def run_command(
        context: Context,
        command: Annotated[str, Field(description="A line for the shell.")],
        folder: Annotated[str | None, Field(description="Where it begins; the home folder by default.")] = None,
        stdin: Annotated[str | None, Field(description="What it reads.")] = None,
        timeout_seconds: Annotated[
            float | None, Field(description="After so much running time it is ended; 15 by default.")
        ] = None,
        machine: NewMachineArgument = None,
    ) -> CallToolResult:
        async def work() -> Rendered:
            target = source.machine(context, machine, create=True)
            stream = target.commands.stream(command, cwd=folder, stdin=stdin, timeout_seconds=timeout_seconds)
            return rendered(await follow(stream, context, partial(end_command_async, target, stream)))

        return answer(await asked(work))


def rendered(result: CommandResult) -> Rendered:
    """What a model is told of a command that has ended."""
    whole = whole_text_of_command(result.stdout, result.stderr, result.error)
    parts = [cut(whole, DEFAULT_TOKENS * CHARACTERS_A_TOKEN, says_how_to_read_on(result.seq))]
    if result.truncated_bytes:
        parts.append(f"[{result.truncated_bytes} more bytes were printed than are kept]")
    parts += [f"[notice] {notice.message}" for notice in result.notices]
    return Rendered("\n".join(part for part in parts if part) or "(no output)", is_error=not result.ok)
