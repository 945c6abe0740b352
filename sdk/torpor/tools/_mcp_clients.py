"""Programs that use MCP servers, and the files in which they look for them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import TorporError

NAME = "torpor"


@dataclass(frozen=True)
class Entry:
    """How a program starts the server. It has no key in it: `torpor mcp` reads that where every command does."""

    command: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class McpClient:
    """A program, its file, and the place of its list of servers in there."""

    name: str
    file: Path
    section: str
    typed: bool = False
    """Whether an entry says that it is of type `stdio`."""

    @property
    def is_toml(self) -> bool:
        """Whether the file is TOML; it is JSON otherwise."""
        return self.file.suffix == ".toml"


def known_clients(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> dict[str, McpClient]:
    """The programs that are known, with their files as their documentation gives them for this platform."""
    home = Path(environment.get("HOME") or Path.home())
    if platform == "darwin":
        applications = home / "Library" / "Application Support"
    elif platform == "win32":
        applications = Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        config = environment.get("XDG_CONFIG_HOME") or ""
        applications = Path(config) if config.startswith("/") else home / ".config"
    found = [
        McpClient("claude-desktop", applications / "Claude" / "claude_desktop_config.json", "mcpServers"),
        McpClient("claude-code", home / ".claude.json", "mcpServers", typed=True),
        McpClient("cursor", home / ".cursor" / "mcp.json", "mcpServers"),
        McpClient("vscode", applications / "Code" / "User" / "mcp.json", "servers", typed=True),
        McpClient("gemini", home / ".gemini" / "settings.json", "mcpServers"),
        McpClient("windsurf", home / ".codeium" / "windsurf" / "mcp_config.json", "mcpServers"),
        McpClient("codex", home / ".codex" / "config.toml", "mcp_servers"),
    ]
    return {client.name: client for client in found}


def installed(client: McpClient, before: str, entry: Entry) -> str:
    """The text of the program's file with the server in it; everything else in there stays as it is.

    Raises `TorporError` if the file cannot be understood.
    """
    return _in_toml(client, before, entry) if client.is_toml else _in_json(client, before, entry)


def snippet(client: McpClient, entry: Entry) -> str:
    """What to put into the program's file by hand."""
    return installed(client, "", entry)


def write(file: Path, text: str) -> None:
    """Write the file whole or not at all; its mode stays. Raises `TorporError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        target = file.resolve()
        half_made = target.with_name(f".{target.name}.torpor")
        half_made.write_text(text, encoding="utf-8")
        if target.exists():
            half_made.chmod(target.stat().st_mode & 0o777)
        half_made.replace(target)
    except OSError as error:
        raise TorporError(f"{file} cannot be written: {error.strerror}.") from error


def _in_json(client: McpClient, before: str, entry: Entry) -> str:
    try:
        settings: Any = json.loads(before) if before.strip() else {}
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get(client.section, {}), dict):
        raise TorporError(
            f"{client.file} is not plain JSON, and is left alone.",
            hint=f"Put this in by hand (torpor mcp install {client.name} --print shows it):\n{snippet(client, entry)}",
        )
    server: dict[str, Any] = {"command": entry.command, "args": list(entry.arguments)}
    settings.setdefault(client.section, {})[NAME] = {"type": "stdio", **server} if client.typed else server
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def _in_toml(client: McpClient, before: str, entry: Entry) -> str:
    heading = f"[{client.section}.{NAME}]"
    # Strings of JSON are strings of TOML, and so are its lists of them.
    lines = [heading, f"command = {json.dumps(entry.command)}", f"args = {json.dumps(list(entry.arguments))}"]
    kept: list[str] = []
    ours = False
    for line in before.splitlines():
        if line.lstrip().startswith("["):
            ours = line.strip() == heading
        if not ours:
            kept.append(line)
    text = "\n".join(kept).rstrip("\n")
    return (text + "\n\n" if text else "") + "\n".join(lines) + "\n"
