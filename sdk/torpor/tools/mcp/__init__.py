"""Torpor over the Model Context Protocol: `torpor mcp`, and `/mcp` of a server. Needs `pip install 'torpor[mcp]'`.

What those two are made of, for programs that serve it themselves. With the protocol's own client:

>>> from mcp import Client
>>> from torpor import AsyncClient
>>> from torpor.tools.mcp import OwnSource, build_server
>>> async with AsyncClient() as torpor, Client(build_server(OwnSource(torpor))) as program:
...     answer = await program.call_tool("run_python", {"code": "3 + 5"})
...     print(answer.content[0].text)
8
"""

from __future__ import annotations

from .http import http_app
from .server import build_server
from .sources import HeaderSource, OwnSource, Source

__all__ = ["HeaderSource", "OwnSource", "Source", "build_server", "http_app"]
