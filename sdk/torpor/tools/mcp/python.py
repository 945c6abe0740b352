"""Tools that run code, and read again what it said."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field

from ..._errors import MachineNotFound
from ..._models import Instruction
from ..._reading import DEFAULT_TOKENS
from .._ending import end_async
from .._output import read_on
from .._rendering import Rendered, render
from .._words import DESCRIPTION
from .answers import answer, asked, says_how_to_read_on, structured
from .running import follow
from .sources import MachineArgument, NewMachineArgument, Source

HISTORY_LENGTH = 20
_CODE_CHARACTERS = 300
_VALUE_CHARACTERS = 200


class Entry(BaseModel):
    """One instruction of a machine's history."""

    instruction: int
    code: str
    state: str | None = Field(description="`waiting`, `running` or `finished`.")
    value: str | None = None
    error: str | None = None
    rolled_back: bool = False
    undone: bool = False


class History(BaseModel):
    """A machine's history, newest first; long texts are cut."""

    entries: list[Entry]


def add_python(server: MCPServer, source: Source) -> None:
    """Add the tools."""

    @server.tool(
        title="Run Python",
        description=DESCRIPTION,
        annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False),
    )
    async def run_python(
        context: Context,
        code: Annotated[str, Field(description="Python code. The value of its last expression is shown.")],
        timeout_seconds: Annotated[
            float | None,
            Field(description="After so much running time it is ended, and everything else stays; 15 by default."),
        ] = None,
        machine: NewMachineArgument = None,
    ) -> CallToolResult:
        async def work() -> Rendered:
            target = source.machine(context, machine, create=True)
            stream = target.stream(code, timeout_seconds=timeout_seconds, queue=True)
            result = await follow(stream, context, partial(end_async, target, stream))
            return render(result, rest=says_how_to_read_on(result.seq))

        return answer(await asked(work))

    @server.tool(
        title="Read output",
        description="What an earlier instruction or command showed, where its answer was cut: output, value and error, "
        "a piece of it or its end.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async def read_output(
        context: Context,
        instruction: Annotated[int, Field(ge=0, description="Its number, as the cut answer or `history` says.")],
        start: Annotated[
            int, Field(description="The first character to read; a negative number counts from the end.")
        ] = 0,
        machine: MachineArgument = None,
    ) -> CallToolResult:
        found = await asked(lambda: source.machine(context, machine).instruction(instruction))
        rest = says_how_to_read_on(instruction)
        return answer(read_on(found, start, limit_tokens=DEFAULT_TOKENS, rest=rest))

    @server.tool(
        title="History",
        description="What was run on the machine before, newest first: numbers, code, and how each ended.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async def history(
        context: Context,
        limit: Annotated[int, Field(ge=1, le=100)] = HISTORY_LENGTH,
        machine: MachineArgument = None,
    ) -> Annotated[CallToolResult, History]:
        async def work() -> list[Instruction]:
            try:
                return [row async for row in source.machine(context, machine).history(limit=limit)]
            except MachineNotFound:
                if machine is not None:
                    raise
                return []  # nothing has made the machine of this connection yet

        entries = [_entry(row) for row in await asked(work)]
        return structured("\n".join(map(_line, entries)) or "(nothing yet)", History(entries=entries))


def _entry(row: Instruction) -> Entry:
    result = row.result or {}
    return Entry(
        instruction=row.seq,
        code=_cut(row.code, _CODE_CHARACTERS),
        state=row.state,
        value=_ending(result, "value"),
        error=_ending(result, "error"),
        rolled_back=row.rolled_back,
        undone=row.undone,
    )


def _line(entry: Entry) -> str:
    ended = entry.error or entry.value or ("ok" if entry.state == "finished" else entry.state)
    marks = [name for name in ("rolled_back", "undone") if getattr(entry, name)]
    return f"{entry.instruction}: {entry.code!r} → {ended}{' [' + ', '.join(marks) + ']' if marks else ''}"


def _ending(result: Mapping[str, Any], name: str) -> str | None:
    text = result.get(name)
    return None if text is None else _cut(str(text), _VALUE_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + "…"
