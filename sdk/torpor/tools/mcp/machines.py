"""Tools for more than one machine: list, make, copy, take back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field

from ..._models import MachineInfo
from .answers import asked, structured
from .sources import MachineArgument, Source

LIST_LENGTH = 50


class MachineRow(BaseModel):
    """One machine."""

    name: str = Field(description="Its own name.")
    alias: str | None = Field(description="What it is called instead, if anything.")
    state: str | None
    last_used_at: datetime | None
    tags: dict[str, str]


class MachineRows(BaseModel):
    """Machines, newest first."""

    machines: list[MachineRow]
    more: bool = Field(description="Whether some are left out.")


class Made(BaseModel):
    """A machine that is there now."""

    name: str
    alias: str


class Forks(BaseModel):
    """Copies of a machine."""

    machines: list[str]


class RolledBack(BaseModel):
    """What a rollback did."""

    left_behind: list[int] = Field(description="Instructions whose effects are undone.")
    undo_generation: int | None = Field(description="For `undo_rollback`.")


def add_machines(server: MCPServer, source: Source) -> None:
    """Add the tools."""

    @server.tool(
        title="List machines",
        description="Your machines, newest first: name, state, when last used.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async def list_machines(context: Context) -> Annotated[CallToolResult, MachineRows]:
        found = await asked(lambda: source.client(context).machines(limit=LIST_LENGTH + 1))
        rows = [_row(machine.info) for machine in found[:LIST_LENGTH] if machine.info is not None]
        lines = [_line(row) for row in rows]
        more = len(found) > LIST_LENGTH
        if more:
            lines.append("[and more]")
        text = "\n".join(lines) or "(none yet: the first code that is run makes one)"
        return structured(text, MachineRows(machines=rows, more=more))

    @server.tool(
        title="New machine",
        description="Make a machine by a name of your choosing, or find the one that has it.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def new_machine(
        context: Context,
        name: Annotated[str, Field(description="Letters, digits, dots, underscores and hyphens, such as `analysis`.")],
        template: Annotated[
            str | None, Field(description="`data`: NumPy, pandas, Matplotlib and scikit-learn are imported already.")
        ] = None,
    ) -> Annotated[CallToolResult, Made]:
        made = await asked(lambda: source.client(context).new_machine(alias=name, template=template))
        text = f"Machine {name} is there (its own name is {made.name}): pass it as `machine`."
        return structured(text, Made(name=made.name, alias=name))

    @server.tool(
        title="Fork machine",
        description="Copy the machine as it is, or as it was right after an instruction, to try something without "
        "touching it; the names of the copies are returned.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def fork_machine(
        context: Context,
        count: Annotated[int, Field(ge=1, le=16)] = 1,
        after_instruction: Annotated[int | None, Field(ge=0, description="Its number in `history`.")] = None,
        machine: MachineArgument = None,
    ) -> Annotated[CallToolResult, Forks]:
        forks = await asked(lambda: source.machine(context, machine).fork(seq=after_instruction, count=count))
        names = [fork.name for fork in forks]
        return structured("\n".join(names), Forks(machines=names))

    @server.tool(
        title="Roll back machine",
        description="Take the machine back to how it was right after an instruction. It can be taken back in turn.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def rollback_machine(
        context: Context,
        after_instruction: Annotated[int, Field(ge=0, description="Its number in `history`.")],
        machine: MachineArgument = None,
    ) -> Annotated[CallToolResult, RolledBack]:
        done = await asked(lambda: source.machine(context, machine).rollback(seq=after_instruction))
        left = ", ".join(map(str, done.left_behind)) or "nothing"
        undo = None if done.undo is None else done.undo.generation
        hint = "" if undo is None else f" To undo this: `undo_rollback` with generation {undo}."
        return structured(
            f"It is as it was after instruction {after_instruction}; left behind: {left}.{hint}",
            RolledBack(left_behind=list(done.left_behind), undo_generation=undo),
        )

    @server.tool(
        title="Undo rollback",
        description="Take a rollback back.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
        structured_output=False,
    )
    async def undo_rollback(
        context: Context,
        generation: Annotated[int, Field(ge=0, description="As the rollback's answer says.")],
        machine: MachineArgument = None,
    ) -> str:
        await asked(lambda: source.machine(context, machine).rollback(generation=generation))
        return "The rollback is undone."


def _row(info: MachineInfo) -> MachineRow:
    used = info.last_used_at or info.created_at
    return MachineRow(name=info.name, alias=info.alias, state=info.state, last_used_at=used, tags=info.tags)


def _line(row: MachineRow) -> str:
    used = "" if row.last_used_at is None else f", last used {row.last_used_at:%Y-%m-%d %H:%M} UTC"
    tags = "".join(f", {name}={value}" for name, value in row.tags.items())
    return f"{row.alias or row.name}: {row.state}{used}{tags}"
