"""Programs that use MCP servers, and the files in which they look for them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._errors import TorporError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "torpor"
CALL_SECONDS = 3600
"""For programs that give a call a minute by default: as long as code may run."""


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
    more: Mapping[str, Any] = field(default_factory=dict)
    """What an entry says besides command and arguments."""

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
    code = Path(environment.get("CLAUDE_CONFIG_DIR") or home)
    codex = Path(environment.get("CODEX_HOME") or home / ".codex")
    copilot = Path(environment.get("COPILOT_HOME") or home / ".copilot")
    windsurf = home / ".codeium" / "windsurf"
    typed = {"type": "stdio"}
    found = [
        McpClient("claude-desktop", applications / "Claude" / "claude_desktop_config.json", "mcpServers"),
        McpClient("claude-code", code / ".claude.json", "mcpServers", typed),
        McpClient("cursor", home / ".cursor" / "mcp.json", "mcpServers"),
        McpClient("vscode", applications / "Code" / "User" / "mcp.json", "servers", typed),
        McpClient("codex", codex / "config.toml", "mcp_servers", {"tool_timeout_sec": CALL_SECONDS}),
        McpClient("copilot", copilot / "mcp-config.json", "mcpServers", {"type": "local", "tools": ["*"]}),
        McpClient("gemini", home / ".gemini" / "settings.json", "mcpServers", {"timeout": CALL_SECONDS * 1000}),
        McpClient("windsurf", windsurf / "mcp_config.json", "mcpServers"),
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
    if not isinstance(settings, dict) or not isinstance(servers := settings.setdefault(client.section, {}), dict):
        raise _not_understood(client, entry)
    old = servers.get(NAME)
    servers[NAME] = {**(old if isinstance(old, dict) else {}), **_fields(client, entry)}
    indented = re.search(r'\n([ \t]+)"', before)
    return json.dumps(settings, indent=indented[1] if indented else 2, ensure_ascii=False) + "\n"


def _in_toml(client: McpClient, before: str, entry: Entry) -> str:
    heading = f"[{client.section}.{NAME}]"
    kept: list[str] = []
    ours = False
    for line in before.splitlines():
        if line.lstrip().startswith("["):
            ours = line.partition("#")[0].strip() == heading
        if not ours:
            kept.append(line)
    text = "\n".join(kept).rstrip("\n")
    # Strings and numbers of JSON are those of TOML, and so are its lists of them.
    lines = [heading, *(f"{name} = {json.dumps(value)}" for name, value in _fields(client, entry).items())]
    after = (text + "\n\n" if text else "") + "\n".join(lines) + "\n"
    if _others(client, after) != _others(client, before):  # some other way to write tables, or a text with brackets
        raise _not_understood(client, entry)
    return after


def _fields(client: McpClient, entry: Entry) -> dict[str, Any]:
    return {**client.more, "command": entry.command, "args": list(entry.arguments)}


def _others(client: McpClient, text: str) -> Any:
    """All that a TOML file says, but for the command and its arguments; a text where it says nothing sensible."""
    try:
        settings = tomllib.loads(text)
        ours = settings.setdefault(client.section, {}).setdefault(NAME, {})
        for name in ("command", "args", *client.more):
            ours.pop(name, None)
    except (ValueError, AttributeError):
        return text
    return settings


def _not_understood(client: McpClient, entry: Entry) -> TorporError:
    kind = "TOML" if client.is_toml else "JSON"
    return TorporError(
        f"{client.file} is not plain {kind}, and is left alone.",
        hint=f"Put this in by hand (torpor mcp install {client.name} --print shows it):\n{snippet(client, entry)}",
    )
