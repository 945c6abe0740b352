"""Settings of programs that use MCP servers: one more entry, and everything else as it was."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from torpor import TorporError
from torpor.tools._mcp_clients import Entry, McpClient, installed, known_clients, write

ENTRY = Entry("/opt/torpor/bin/torpor", ("mcp", "--machine", "mcp"))
JSON_CLIENT = McpClient("cursor", Path("mcp.json"), "mcpServers")
TOML_CLIENT = McpClient("codex", Path("config.toml"), "mcp_servers")


def test_an_entry_is_added_beside_others_and_once() -> None:
    before = json.dumps({"theme": "dark", "mcpServers": {"other": {"command": "x"}}})
    after = installed(JSON_CLIENT, before, ENTRY)
    settings = json.loads(after)
    assert settings["theme"] == "dark"
    assert settings["mcpServers"]["other"] == {"command": "x"}
    assert settings["mcpServers"]["torpor"] == {"command": ENTRY.command, "args": ["mcp", "--machine", "mcp"]}
    assert installed(JSON_CLIENT, after, ENTRY) == after


def test_the_users_own_words_in_our_entry_and_the_files_look_stay() -> None:
    ours = {"command": "old", "args": [], "env": {"TORPOR_URL": "http://torpor.example"}}
    before = json.dumps({"mcpServers": {"torpor": ours}}, indent="\t") + "\n"
    after = installed(JSON_CLIENT, before, ENTRY)
    assert json.loads(after)["mcpServers"]["torpor"] == {
        "command": ENTRY.command,
        "args": list(ENTRY.arguments),
        "env": {"TORPOR_URL": "http://torpor.example"},
    }
    assert after.startswith('{\n\t"mcpServers"')


def test_programs_that_give_a_call_a_minute_are_told_of_longer_ones() -> None:
    codex = known_clients({"HOME": "/home/ada"}, "linux")["codex"]
    assert tomllib.loads(installed(codex, "", ENTRY))["mcp_servers"]["torpor"]["tool_timeout_sec"] == 3600


@pytest.mark.parametrize(
    "before",
    [
        'mcp_servers = { torpor = { command = "old" } }\n',
        'mcp_servers.torpor.command = "old"\n',
        'note = """\n[mcp_servers.torpor]\nnot a table\n"""\n',
        "nonsense",
    ],
)
def test_toml_that_is_written_in_another_way_is_left_alone(before: str) -> None:
    with pytest.raises(TorporError) as caught:
        installed(TOML_CLIENT, before, ENTRY)
    assert ENTRY.command in (caught.value.hint or "")


@pytest.mark.parametrize("before", ['{"a": 1, // why\n}', "[]", '{"mcpServers": []}', "nonsense"])
def test_what_is_not_understood_is_left_alone_and_the_entry_shown(before: str) -> None:
    with pytest.raises(TorporError) as caught:
        installed(JSON_CLIENT, before, ENTRY)
    assert ENTRY.command in (caught.value.hint or "")


def test_in_toml_only_our_own_table_is_replaced() -> None:
    ours = '[mcp_servers.torpor]\ncommand = "old"\nargs = []\n'
    before = f'# mine\nmodel = "x"\n\n{ours}\n[mcp_servers.other]\ncommand = "y"\n'
    after = installed(TOML_CLIENT, before, ENTRY)
    settings = tomllib.loads(after)
    assert settings["model"] == "x"
    assert settings["mcp_servers"]["other"] == {"command": "y"}
    assert settings["mcp_servers"]["torpor"] == {"command": ENTRY.command, "args": list(ENTRY.arguments)}
    assert "# mine" in after
    assert installed(TOML_CLIENT, after, ENTRY) == after


def test_a_file_is_written_whole_through_its_link_and_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "mcp.json"
    target.parent.mkdir()
    target.write_text("{}")
    target.chmod(0o600)
    link = tmp_path / "mcp.json"
    link.symlink_to(target)
    write(link, "new")
    assert (target.read_text(), target.stat().st_mode & 0o777, link.is_symlink()) == ("new", 0o600, True)
    write(tmp_path / "nowhere" / "yet.json", "made")
    assert (tmp_path / "nowhere" / "yet.json").read_text() == "made"
    assert not list(tmp_path.rglob(".*.torpor"))


def test_each_platform_has_its_places() -> None:
    linux = known_clients({"HOME": "/home/ada"}, "linux")
    assert linux["claude-desktop"].file == Path("/home/ada/.config/Claude/claude_desktop_config.json")
    assert linux["cursor"].file == Path("/home/ada/.cursor/mcp.json")
    mac = known_clients({"HOME": "/Users/ada"}, "darwin")
    assert mac["vscode"].file == Path("/Users/ada/Library/Application Support/Code/User/mcp.json")
    moved = known_clients({"HOME": "/home/ada", "CODEX_HOME": "/x", "CLAUDE_CONFIG_DIR": "/y"}, "linux")
    assert (moved["codex"].file, moved["claude-code"].file) == (Path("/x/config.toml"), Path("/y/.claude.json"))
