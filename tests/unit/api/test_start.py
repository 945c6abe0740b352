"""How a server starts, and what stands in its way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from torpor_api.client_settings import save_client_settings
from torpor_api.data_folder import DataFolderUnusableError, data_folder

URL = "http://127.0.0.1:8000"


def serve(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("torpor")), "serve", "--data-dir", str(folder), *options],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_wrong_setting_is_a_sentence_and_status_2(tmp_path: Path) -> None:
    ended = serve(tmp_path, TORPOR_IDLE_SECONDS="inf")

    assert ended.returncode == 2
    assert ended.stderr.startswith("TORPOR_IDLE_SECONDS: ")
    assert "Traceback" not in ended.stderr


def test_a_missing_runtime_is_a_sentence_that_says_how_to_build_it(tmp_path: Path) -> None:
    ended = serve(tmp_path, "--listen", "127.0.0.1:0")

    assert ended.returncode == 3
    assert "torpor runtime build" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = serve(tmp_path, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")

    assert ended.returncode == 3
    assert "address already in use" in ended.stderr
    assert "--listen" in ended.stderr


def test_a_data_folder_that_another_server_uses_is_a_sentence(tmp_path: Path) -> None:
    with data_folder(tmp_path):
        ended = serve(tmp_path, "--listen", "127.0.0.1:0")

    assert ended.returncode == 3
    assert "Another server uses the data folder" in ended.stderr


def test_the_data_folder_is_its_owners_alone_and_free_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with data_folder(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
    with data_folder(folder):
        pass


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataFolderUnusableError, match="cannot be used"), data_folder(tmp_path / "file"):
        pass


def test_client_settings_are_written_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "torpor" / "config.toml"

    assert save_client_settings(path, URL, "alice.secret")
    assert tomllib.loads(path.read_text()) == {"url": URL, "api_key": "alice.secret"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_key_for_the_same_address_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    save_client_settings(path, URL, "alice.old")

    assert save_client_settings(path, URL, "alice.new")
    assert tomllib.loads(path.read_text())["api_key"] == "alice.new"


@pytest.mark.parametrize("text", ['url = "https://torpor.example.org"\napi_key = "me.mine"\n', "not toml ["])
def test_client_settings_of_another_server_are_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)

    assert not save_client_settings(path, URL, "alice.secret")
    assert path.read_text() == text
