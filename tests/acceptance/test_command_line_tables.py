"""What commands show on a terminal and not in a pipe: tables, a bar, a question whose answer is hidden."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.server import ServerProcess
from tests.support.terminal import terminal

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture
def environment(server: ServerProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORPOR_", "XDG_"))}
    own = {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key, "HOME": str(tmp_path / "home")}
    return kept | own | {"TERM": "xterm-256color", "LANG": "C.UTF-8"}


def shown(environment: dict[str, str], *arguments: str) -> list[list[str]]:
    """The rows of a table, as the words in them; the heading is the first."""
    with terminal(environment, *arguments, columns=120) as screen:
        assert screen.wait_for_the_end() == 0, screen.text
    assert "\t" not in screen.text
    rows = [line.split() for line in screen.text.splitlines() if line.strip()]
    assert set("".join(rows[1])) == {"─"}, screen.text  # what a pipe does not get
    return [rows[0], *rows[2:]]


def test_lists_are_tables(environment: dict[str, str], server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.machine("analysis")
        machine.files.write("data/in.csv", b"a,b\n")
        machine.run("a = 3").raise_for_error()
        machine.sync()

        heading, row = shown(environment, "ls")
        assert heading[:3] == ["MACHINE", "ALIAS", "STATE"]
        assert row[:3] == [machine.detail().name, "analysis", "awake"]
        assert ["alias", "analysis"] in shown(environment, "show", "analysis")
        heading, row = shown(environment, "files", "analysis", "data")
        assert heading == ["NAME", "SIZE", "MODE", "CHANGED"]
        assert row[:4] == ["in.csv", "4", "B", "-rw-r--r--"]
        heading, row = shown(environment, "snapshots", "analysis")
        assert heading[0] == "GENERATION"
        assert row[0] == str(machine.snapshots()[0].generation)
        [key] = client.keys()
        assert any(key.id in row for row in shown(environment, "key", "list"))


def test_a_copy_shows_how_far_it_is_and_leaves_nothing_of_that(
    environment: dict[str, str], server: ServerProcess, tmp_path: Path
) -> None:
    source, copy = tmp_path / "large", tmp_path / "copy"
    source.write_bytes(os.urandom(8 << 20))
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        client.machine("analysis").run("1")  # it is made at its first use
        for arguments in ((str(source), "analysis:"), ("analysis:large", str(copy))):
            with terminal(environment, "cp", *arguments, columns=120) as screen:
                assert screen.wait_for_the_end() == 0, screen.text
            assert "━" in screen.text
            assert "8.4 MB" in screen.text
            assert "\x1b[2K" in screen.raw.decode()  # the bar is wiped out
            with terminal(environment, "cp", "--quiet", *arguments) as screen:
                assert screen.wait_for_the_end() == 0, screen.text
            assert "━" not in screen.text
    assert copy.read_bytes() == source.read_bytes()


def test_a_key_that_is_typed_is_not_shown(environment: dict[str, str], server: ServerProcess, tmp_path: Path) -> None:
    del environment["TORPOR_URL"], environment["TORPOR_API_KEY"]
    with terminal(environment, "login", columns=200) as screen:
        screen.wait_for("Server")
        screen.type(f"{server.url}\n")
        screen.wait_for("API key")
        screen.wait_until(lambda: not screen.is_echoing)
        screen.type(f"{server.api_key}\n")
        assert screen.wait_for_the_end() == 0, screen.text
    assert f"You are {server.account} at {server.url}." in screen.text
    assert server.api_key.partition(".")[2] not in screen.text
    saved = tmp_path / "home" / ".config" / "torpor" / "config.toml"
    assert server.api_key in saved.read_text()
    assert saved.stat().st_mode & 0o077 == 0
    with terminal(environment, "whoami") as screen:
        assert screen.wait_for_the_end() == 0, screen.text
