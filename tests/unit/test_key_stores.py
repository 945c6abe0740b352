"""Key stores by their URLs, and what each of them promises."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.key_store_contract import KeyStoreContract
from tests.support.sqlite_keys import SqliteKeys

from torpor_api.config import BadSettings, read_config
from torpor_snapshotter.key_store_url import GROUP, BadKeyStoreUrl, open_key_store
from torpor_snapshotter.keys import FolderKeyStore, KeyStore


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that adds a kind of key store is installed."""
    facts = tmp_path / "site" / "other_keys-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: other-keys\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(f"[{GROUP}]\nsqlite-keys = tests.support.sqlite_keys:SqliteKeys\n")
    monkeypatch.syspath_prepend(facts.parent)


class TestFolder(KeyStoreContract):
    """The kind that is always there."""

    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Callable[[], KeyStore]:
        return lambda: open_key_store((tmp_path / "keys").as_uri())


class TestPluggedIn(KeyStoreContract):
    """One that another distribution has added."""

    @pytest.fixture
    def open_again(self, tmp_path: Path, plugged_in: None) -> Callable[[], KeyStore]:
        return lambda: open_key_store(f"sqlite-keys://{tmp_path}/keys.db")


def test_the_scheme_says_which_kind(tmp_path: Path, plugged_in: None) -> None:
    assert isinstance(open_key_store("file:///srv/keys"), FolderKeyStore)
    assert isinstance(open_key_store("sqlite-keys:///srv/keys.db"), SqliteKeys)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("vault://host/keys", "file:///"),
        ("/srv/keys", "file:///"),
        ("", "file:///"),
        ("file://host/keys", "this host"),
        ("file:keys", "this host"),
        ("file:///keys?x=1", "this host"),
    ],
)
def test_a_url_that_names_no_key_store_is_refused_at_the_start(url: str, said: str) -> None:
    with pytest.raises(BadKeyStoreUrl, match=said):
        open_key_store(url)
    if url:
        with pytest.raises(BadSettings, match=said):
            read_config({"keys_url": url})


def test_credentials_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadKeyStoreUrl) as refused:
        open_key_store("vault://user:secret@host/keys")
    assert "secret" not in str(refused.value)


def test_what_is_installed_is_named(plugged_in: None) -> None:
    with pytest.raises(BadKeyStoreUrl, match="file: or sqlite-keys:"):
        open_key_store("vault://host/keys")
