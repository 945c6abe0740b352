"""Keys of machines in a folder."""

import stat
from pathlib import Path

import pytest

from torpor_snapshotter.keys import FolderKeyStore, KeyMissing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def keys(folder: Path) -> FolderKeyStore:
    return FolderKeyStore(folder)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_key_is_made_once_and_is_there_after_a_restart(keys: FolderKeyStore, folder: Path) -> None:
    key = keys.make("m")
    assert len(key) == 32
    assert keys.make("m") == key
    assert FolderKeyStore(folder).get("m") == key
    assert keys.make("other") != key


def test_only_the_owner_can_read_the_files_and_none_holds_a_key_in_the_clear(
    keys: FolderKeyStore, folder: Path
) -> None:
    key = keys.make("m")
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert not any(key in content for content in files(folder).values())


def test_a_destroyed_key_is_gone_and_can_be_destroyed_again(keys: FolderKeyStore) -> None:
    key, other = keys.make("m"), keys.make("other")
    keys.destroy("m")
    keys.destroy("m")
    keys.destroy("never")
    with pytest.raises(KeyMissing, match="machine m "):
        keys.get("m")
    assert keys.get("other") == other
    assert keys.make("m") != key


def test_after_a_rotation_keys_are_the_same_and_every_file_is_another(keys: FolderKeyStore, folder: Path) -> None:
    made = {name: keys.make(name) for name in ("a", "b")}
    before = files(folder)
    keys.rotate()
    keys.rotate()
    assert {name: FolderKeyStore(folder).get(name) for name in made} == made
    assert not {content for content in before.values() if content} & set(files(folder).values())


def test_a_rotation_that_died_can_be_started_again(keys: FolderKeyStore, folder: Path) -> None:
    key = keys.make("m")
    (folder / "masters" / "2").write_bytes(b"n" * 32)  # written, and then the power was cut
    new = keys.make("new")
    keys.rotate()
    assert (keys.get("m"), keys.get("new")) == (key, new)
    assert [path.name for path in (folder / "masters").iterdir()] == ["3"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../lock", "ü"])
def test_what_is_no_name_of_a_machine_has_no_key(keys: FolderKeyStore, name: str) -> None:
    for call in (keys.make, keys.get, keys.destroy):
        with pytest.raises(KeyMissing, match="not the name"):
            call(name)


def test_a_damaged_file_is_an_error_that_names_it(keys: FolderKeyStore, folder: Path) -> None:
    keys.make("m")
    path = folder / "machines" / "m"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(KeyMissing, match="damaged"):
        keys.get("m")
