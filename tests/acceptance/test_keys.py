"""Keys from the command line: a second user's, by `torpor key new` and `torpor login`."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

COMMAND = str(Path(sys.executable).with_name("torpor"))


def torpor(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_key_is_made_used_from_another_home_and_revoked(server: ServerProcess, tmp_path: Path) -> None:
    first = server.environment() | {"TORPOR_URL": server.url, "TORPOR_API_KEY": server.api_key}
    second = server.environment() | {"XDG_CONFIG_HOME": str(tmp_path / "second")}
    key = torpor(first, "key", "new", "laptop").stdout.strip()
    login = torpor(second, "login", "--url", server.url, stdin=f"{key}\n")
    assert login.returncode == 0, login.stderr
    saved = tmp_path / "second" / "torpor" / "config.toml"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert torpor(second, "whoami").stdout == f"tester at {server.url}\n"

    keys = json.loads(torpor(second, "key", "list", "--json").stdout)
    assert [(one["name"], one["current"]) for one in keys] == [("", False), ("laptop", True)]
    assert torpor(first, "key", "revoke", keys[1]["id"]).returncode == 0
    refused = torpor(second, "whoami")
    assert refused.returncode != 0
    assert "key is missing or wrong" in refused.stderr
    assert key not in refused.stderr + server.log

    wrong = torpor(second, "login", "--url", server.url, stdin="tester.wrong\n")
    assert wrong.returncode != 0
    assert key in saved.read_text()
