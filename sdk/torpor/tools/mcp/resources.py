"""Machines as resources: what a person attaches to a conversation, or a program looks at."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer, ResourceSecurity
from mcp.server.mcpserver.exceptions import ResourceError
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, Resource

from ..._errors import TorporError
from ..._models import MachineInfo
from .._output import reason_for_nothing, whole_text_of_instruction
from .answers import read, words
from .sources import Source

LIST_LENGTH = 100
FILE_BYTES = 8 << 20


def add_resources(server: MCPServer, source: Source) -> None:
    """Add a machine, its history and its outputs; the list of resources has the newest machines."""

    @server.resource("torpor://machine/{name}", name="machine", title="A machine", mime_type="application/json")
    async def machine_resource(name: str, context: Context) -> str:
        """State, settings and sizes of a machine."""
        return (await read(source.machine(context, name).detail)).model_dump_json(indent=2)

    @server.resource("torpor://machine/{name}/history", name="history", title="History", mime_type="application/json")
    async def history_resource(name: str, context: Context) -> str:
        """What was run on a machine, newest first."""

        async def rows() -> list[dict[str, Any]]:
            history = source.machine(context, name).history(limit=100)
            return [row.model_dump(mode="json", exclude={"events"}) async for row in history]

        return json.dumps(await read(rows), indent=2, ensure_ascii=False)

    @server.resource("torpor://machine/{name}/output/{seq}", name="output", title="Output", mime_type="text/plain")
    async def output_resource(name: str, seq: int, context: Context) -> str:
        """All that an instruction or a command showed: output, value and error."""
        instruction = await read(lambda: source.machine(context, name).instruction(seq))
        if (reason := reason_for_nothing(instruction)) is not None:
            raise ResourceError(reason)
        return whole_text_of_instruction(instruction)

    @server.resource(
        "torpor://machine/{name}/file/{+path}",
        name="file",
        title="A file",
        mime_type="application/octet-stream",
        security=ResourceSecurity(exempt_params={"path"}),  # the machine is its wall
    )
    async def file_resource(name: str, path: str, context: Context) -> bytes:
        """The bytes of a machine's file, 8 MiB at most."""

        async def whole() -> bytes:
            files = source.machine(context, name).files
            if (size := (await files.info(path)).size) > FILE_BYTES:
                raise ResourceError(f"{path} has {size} bytes: `torpor cp` copies a file of any size.")
            return await files.read(path)

        return await read(whole)

    server.middleware.append(_listing(source))


def _listing(source: Source) -> ServerMiddleware[Any]:
    async def listing(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        if ctx.method != "resources/list" or not isinstance(result, dict):
            return result
        try:
            machines = await source.client(ctx).machines(limit=LIST_LENGTH)
        except TorporError as error:
            raise MCPError(INTERNAL_ERROR, words(error)) from error
        found = [_resource(machine.info) for machine in machines if machine.info is not None]
        return {**result, "resources": [*result.get("resources", ()), *found]}

    return listing


def _resource(info: MachineInfo) -> dict[str, Any]:
    name = info.alias or info.name
    resource = Resource(
        uri=f"torpor://machine/{name}",
        name=name,
        title=f"Machine {name}",
        description=f"{info.state}; template {info.template}",
        mime_type="application/json",
    )
    return resource.model_dump(by_alias=True, mode="json", exclude_none=True)
