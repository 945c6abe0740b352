"""`torpor mcp --http` and `torpor mcp install`, as they are typed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.support.api import KEY, OTHER_KEY, Api
from tests.support.terminal import COMMAND

SECONDS = 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORPOR_", "XDG_", "CLAUDE_"))}
    return {**kept, "HOME": str(home), **more}


def install(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "mcp", "install", *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def free_place() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


async def test_over_http_each_request_is_done_with_its_own_key(live: Api, home: Path) -> None:
    place = free_place()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("mcp", "--http", "--listen", place, "--machine", "work"),
        env=environment(home, TORPOR_URL=str(live.client.base_url), TORPOR_API_KEY=KEY),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.readline(), SECONDS)
        assert f"MCP at http://{place}/mcp for the Torpor server at" in said.decode()
        async with httpx2.AsyncClient(timeout=SECONDS) as http:
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        answer = await http.post(f"http://{place}/mcp", json={})
                        break
                    except httpx2.ConnectError:
                        await asyncio.sleep(0.05)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), "its own key is for nobody"
            http.headers["Authorization"] = f"Bearer {OTHER_KEY}"
            async with Client(streamable_http_client(f"http://{place}/mcp", http_client=http)) as client:
                ran = await client.call_tool("run_python", {"code": "3 + 5"})
                assert ran.content[0].text == "8"  # type: ignore[union-attr]
        listed = await live.client.get("/v1/machine/list", headers={"Authorization": f"Bearer {OTHER_KEY}"})
        assert [machine["alias"] for machine in listed.json()["machines"]] == ["work"]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), SECONDS) in (0, 130)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("place", ["127.0.0.1", "127.0.0.1:http", ":"])
def test_over_http_a_place_is_a_host_and_a_port(home: Path, place: str) -> None:
    ran = subprocess.run(
        [COMMAND, "mcp", "--http", "--listen", place],
        env=environment(home, TORPOR_API_KEY=KEY),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 3
    assert "--listen wants a host and a port." in ran.stderr
    assert "127.0.0.1:8765" in ran.stderr


def test_install_adds_an_entry_shows_it_and_says_that_no_key_is_saved(home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    before = '{\n  "theme": "dark",\n  "mcpServers": {\n    "other": {\n      "command": "x"\n    }\n  }\n}\n'
    file.write_text(before)
    ran = install(home, "cursor", "--machine", "work", TORPOR_API_KEY=KEY)
    assert ran.returncode == 0, ran.stderr
    settings = json.loads(file.read_text())
    assert settings["theme"] == "dark"
    assert settings["mcpServers"]["other"] == {"command": "x"}
    entry = settings["mcpServers"]["torpor"]
    assert entry["args"] == ["mcp", "--machine", "work"]
    assert Path(entry["command"]).is_absolute()
    assert os.access(entry["command"], os.X_OK)
    assert f"--- {file}\n+++ {file}\n" in ran.stdout
    added = [line for line in ran.stdout.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert any('"torpor"' in line for line in added)
    assert "Start cursor again" in ran.stderr
    assert "No key is saved" in ran.stderr, "the program will not see this terminal's"
    after = file.read_text()
    again = install(home, "cursor", "--machine", "work")
    assert f"{file} has it already." in again.stderr
    assert (again.stdout, file.read_text()) == ("", after)


def test_install_is_content_with_a_key_that_is_saved(home: Path) -> None:
    saved = home / ".config" / "torpor" / "config.toml"
    saved.parent.mkdir(parents=True)
    saved.write_text(f'url = "http://127.0.0.1:1"\napi_key = "{KEY}"\n')
    saved.chmod(0o600)
    ran = install(home, "codex")
    assert ran.returncode == 0, ran.stderr
    assert "No key is saved" not in ran.stderr
    assert "[mcp_servers.torpor]" in (home / ".codex" / "config.toml").read_text()
    assert KEY not in (home / ".codex" / "config.toml").read_text()


def test_install_print_shows_the_entry_and_writes_nothing(home: Path) -> None:
    ran = install(home, "vscode", "--print")
    assert json.loads(ran.stdout)["servers"]["torpor"]["args"] == ["mcp", "--machine", "mcp"]
    assert (ran.returncode, ran.stderr, list(home.iterdir())) == (0, "", [])


def test_install_leaves_alone_what_it_does_not_understand_or_know(home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text("{} // mine")
    ran = install(home, "cursor")
    assert (ran.returncode, ran.stdout, file.read_text()) == (3, "", "{} // mine")
    assert "is not plain JSON, and is left alone." in ran.stderr
    unknown = install(home, "emacs")
    assert unknown.returncode == 3
    assert "Known are: claude-desktop" in unknown.stderr
