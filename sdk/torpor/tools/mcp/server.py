"""The server that a model's program talks to, over whatever connection."""

from __future__ import annotations

from importlib.metadata import version

from mcp.server.mcpserver import MCPServer

from .._words import INSTRUCTIONS
from .commands import add_commands
from .files import add_files
from .machines import add_machines
from .python import add_python
from .resources import add_resources
from .sources import Source


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
    add_python(server, source)
    add_commands(server, source)
    add_files(server, source)
    add_machines(server, source)
    add_resources(server, source)
    return server
