"""The tools and resources that a model is given."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from ..._async_machine import AsyncMachine
from ..._errors import ApiError, ServerUnreachable, TorporError
from ..._events import Stderr, Stdout
from ..._models import Instruction
from .._words import DESCRIPTION, INSTRUCTIONS
from .running import run, told
from .sources import Source

T = TypeVar("T")

OUTPUT_CHARACTERS = 16_000
HISTORY_LENGTH = 20
_CODE_CHARACTERS = 300
_VALUE_CHARACTERS = 200

MachineArgument = Annotated[
    str | None,
    Field(
        description="Name of another machine, its own or one of your choosing, for which it is made; normally left out."
    ),
]
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)


def build_server(source: Source) -> MCPServer:
    """A server whose requests are done for whom `source` says."""
    server: MCPServer = MCPServer(
        "torpor",
        title="Torpor",
        description="Python machines that are always there.",
        instructions=INSTRUCTIONS.replace("`python`", "`run_python`"),
        version=version("torpor"),
        log_level="WARNING",
    )

    def machine_of(context: Context, name: str | None) -> AsyncMachine:
        headers = context.headers
        return source.client(headers).machine(name or source.machine_name(headers))

    @server.tool(description=DESCRIPTION, annotations=CHANGES, structured_output=False)
    async def run_python(
        context: Context,
        code: Annotated[str, Field(description="Python code. The value of its last expression is shown.")],
        timeout_seconds: Annotated[
            float | None,
            Field(description="After so much running time it is ended, and everything else stays; 15 by default."),
        ] = None,
        machine: MachineArgument = None,
    ) -> CallToolResult:
        return await _asked(lambda: run(machine_of(context, machine), code, timeout_seconds, context))

    @server.tool(
        description="The stored output of an earlier instruction, where its answer was cut: a piece of it, or its end.",
        annotations=READS,
        structured_output=False,
    )
    async def read_output(
        context: Context,
        instruction: Annotated[int, Field(ge=0, description="Its number, as the cut answer or `history` says.")],
        start: Annotated[
            int, Field(description="The first character to read; a negative number counts from the end.")
        ] = 0,
        machine: MachineArgument = None,
    ) -> str:
        text = output_text(await _asked(lambda: machine_of(context, machine).instruction(instruction)))
        first = max(0, len(text) + start) if start < 0 else min(start, len(text))
        piece = text[first : first + OUTPUT_CHARACTERS]
        left = len(text) - first - len(piece)
        return piece + (f"\n[{left} more characters from {first + len(piece)}]" if left else "")

    @server.tool(
        description="What was run on the machine before, newest first: numbers, code, and how each ended.",
        annotations=READS,
        structured_output=False,
    )
    async def history(
        context: Context,
        limit: Annotated[int, Field(ge=1, le=100)] = HISTORY_LENGTH,
        machine: MachineArgument = None,
    ) -> str:
        async def rows() -> list[Instruction]:
            return [row async for row in machine_of(context, machine).history(limit=limit)]

        return "\n".join(map(_line, await _asked(rows))) or "(nothing yet)"

    @server.tool(
        description="Your machines, newest first: name, state, when last used.",
        annotations=READS,
        structured_output=False,
    )
    async def list_machines(context: Context) -> str:
        async def found() -> list[AsyncMachine]:
            return await source.client(context.headers).machines()

        lines = [
            f"{info.alias or info.name}: {info.state}, last used {info.last_used_at:%Y-%m-%d %H:%M} UTC"
            for machine in await _asked(found)
            if (info := machine.info) is not None and info.last_used_at is not None
        ]
        return "\n".join(lines) or "(none yet: the first code that is run makes one)"

    @server.tool(
        description="Make a machine by a name of your choosing, or find the one that has it.",
        annotations=ADDS,
        structured_output=False,
    )
    async def new_machine(
        context: Context,
        name: Annotated[str, Field(description="Letters, digits, dots, underscores and hyphens, such as `analysis`.")],
        template: Annotated[
            str | None, Field(description="`data`: NumPy, pandas, Matplotlib and scikit-learn are imported already.")
        ] = None,
    ) -> str:
        made = await _asked(lambda: source.client(context.headers).new_machine(alias=name, template=template))
        return f"Machine {name} is there (its own name is {made.name}): pass it as `machine`."

    @server.tool(
        description="Copy the machine as it is, or as it was right after an instruction, to try something without "
        "touching it; the names of the copies are returned.",
        annotations=ADDS,
        structured_output=False,
    )
    async def fork_machine(
        context: Context,
        count: Annotated[int, Field(ge=1, le=16)] = 1,
        after_instruction: Annotated[int | None, Field(ge=0, description="Its number in `history`.")] = None,
        machine: MachineArgument = None,
    ) -> str:
        forks = await _asked(lambda: machine_of(context, machine).fork(seq=after_instruction, count=count))
        return "\n".join(fork.name for fork in forks)

    @server.tool(
        description="Take the machine back to how it was right after an instruction. It can be taken back in turn.",
        annotations=CHANGES,
        structured_output=False,
    )
    async def rollback_machine(
        context: Context,
        after_instruction: Annotated[int, Field(ge=0, description="Its number in `history`.")],
        machine: MachineArgument = None,
    ) -> str:
        done = await _asked(lambda: machine_of(context, machine).rollback(seq=after_instruction))
        left = ", ".join(map(str, done.left_behind)) or "nothing"
        undo = "" if done.undo is None else f" To undo this: `undo_rollback` with generation {done.undo.generation}."
        return f"It is as it was after instruction {after_instruction}; left behind: {left}.{undo}"

    @server.tool(description="Take a rollback back.", annotations=CHANGES, structured_output=False)
    async def undo_rollback(
        context: Context,
        generation: Annotated[int, Field(ge=0, description="As the rollback's answer says.")],
        machine: MachineArgument = None,
    ) -> str:
        await _asked(lambda: machine_of(context, machine).rollback(generation=generation))
        return "The rollback is undone."

    @server.resource("torpor://machine/{name}", name="machine", title="A machine", mime_type="application/json")
    async def machine_resource(name: str, context: Context) -> str:
        """State, settings and sizes of a machine."""
        detail = await _read(source.client(context.headers).machine(name, create=False).detail)
        return detail.model_dump_json(indent=2)

    @server.resource("torpor://machine/{name}/history", name="history", title="History", mime_type="application/json")
    async def history_resource(name: str, context: Context) -> str:
        """What was run on a machine, newest first."""
        target = source.client(context.headers).machine(name, create=False)

        async def rows() -> list[dict[str, Any]]:
            return [row.model_dump(mode="json", exclude={"events"}) async for row in target.history(limit=100)]

        return json.dumps(await _read(rows), indent=2)

    @server.resource("torpor://machine/{name}/output/{seq}", name="output", title="Output", mime_type="text/plain")
    async def output_resource(name: str, seq: int, context: Context) -> str:
        """All that an instruction printed."""
        target = source.client(context.headers).machine(name, create=False)
        return output_text(await _read(lambda: target.instruction(seq)))

    return server


def output_text(instruction: Instruction) -> str:
    """What an instruction wrote to its streams, in order."""
    return "".join(event.text for event in instruction.events or () if isinstance(event, Stdout | Stderr))


async def _asked(work: Callable[[], Awaitable[T]]) -> T:
    try:
        return await work()
    except (ApiError, ServerUnreachable) as error:
        raise told(error) from error
    except TorporError as error:
        raise ToolError(str(error)) from error


async def _read(work: Callable[[], Awaitable[T]]) -> T:
    try:
        return await work()
    except TorporError as error:
        raise ResourceError(str(error)) from error


def _line(row: Instruction) -> str:
    code = row.code if len(row.code) <= _CODE_CHARACTERS else row.code[:_CODE_CHARACTERS] + "…"
    ended = row.state or ""
    if row.result is not None:
        ended = str(row.result.get("error") or row.result.get("value") or "ok")[:_VALUE_CHARACTERS]
    marks = [name for name in ("rolled_back", "undone") if getattr(row, name)]
    return f"{row.seq}: {code!r} → {ended}{' [' + ', '.join(marks) + ']' if marks else ''}"
