"""Torpor over the Model Context Protocol: `torpor mcp`, and `/mcp` of a server. Needs `pip install 'torpor[mcp]'`."""

from __future__ import annotations

from .http import http_app
from .server import build_server
from .sources import HeaderSource, OwnSource, Source

__all__ = ["HeaderSource", "OwnSource", "Source", "build_server", "http_app"]
