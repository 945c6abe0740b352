"""What every key store promises: tests for whoever has a fixture `open_again`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from torpor_snapshotter.keys import KEY_BYTES, KeyMissing, KeyStore


class KeyStoreContract:
    """A subclass gives the fixture `open_again`: each call opens the same store, as another process would."""

    def test_a_key_is_made_once_and_found_by_others(self, open_again: Callable[[], KeyStore]) -> None:
        key = open_again().make("m")
        assert len(key) == KEY_BYTES
        assert open_again().make("m") == key
        assert open_again().get("m") == key
        assert open_again().make("other") != key

    def test_of_many_who_make_a_key_all_get_the_same(self, open_again: Callable[[], KeyStore]) -> None:
        with ThreadPoolExecutor(8) as threads:
            made = set(threads.map(lambda _: open_again().make("m"), range(32)))
        assert made == {open_again().get("m")}

    def test_a_key_that_was_never_made_or_is_destroyed_is_missing(self, open_again: Callable[[], KeyStore]) -> None:
        with pytest.raises(KeyMissing, match="machine never "):
            open_again().get("never")
        key, other = open_again().make("m"), open_again().make("other")
        for machine in ("m", "m", "never"):
            open_again().destroy(machine)
        with pytest.raises(KeyMissing, match="machine m "):
            open_again().get("m")
        assert open_again().get("other") == other
        assert open_again().make("m") != key

    def test_a_rotation_changes_no_key(self, open_again: Callable[[], KeyStore]) -> None:
        with pytest.raises(KeyMissing, match="no keys"):
            open_again().rotate()
        made = {name: open_again().make(name) for name in ("a", "b")}
        open_again().rotate()
        open_again().rotate()
        assert {name: open_again().get(name) for name in made} == made
