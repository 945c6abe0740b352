"""`torpor keys` on a folder."""

from pathlib import Path

from typer.testing import CliRunner

from torpor_api.commands.keys import app
from torpor_snapshotter.keys import FolderKeyStore


def test_rotate_replaces_the_master_and_no_key(tmp_path: Path) -> None:
    key = FolderKeyStore(tmp_path / "keys").make("m")
    masters = tmp_path / "keys" / "masters"
    assert [path.name for path in masters.iterdir()] == ["1"]
    assert CliRunner().invoke(app, ["rotate", "--data-dir", str(tmp_path)]).exit_code == 0
    assert [path.name for path in masters.iterdir()] == ["2"]
    assert FolderKeyStore(tmp_path / "keys").get("m") == key


def test_without_keys_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["rotate", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "no keys" in result.output
