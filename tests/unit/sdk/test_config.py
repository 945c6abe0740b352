"""Where address and key come from, and that the key is never shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.support.stub_server import API_KEY

import torpor
from torpor._config import load_config


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "torpor").mkdir()
    (tmp_path / "torpor" / "config.toml").write_text('url = "http://saved:1/"\napi_key = "saved.key"\n')
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def read(**options: object) -> tuple[str, str]:
    config = load_config(**options)  # type: ignore[arg-type]  # each test gives some of its arguments
    return config.url, config.api_key.get_secret_value()


def test_the_file_that_serve_writes_is_enough(environment: dict[str, str]) -> None:
    assert read(environment=environment) == ("http://saved:1", "saved.key")


def test_the_environment_comes_before_the_file_and_arguments_before_both(environment: dict[str, str]) -> None:
    environment |= {"TORPOR_URL": "https://env:2", "TORPOR_API_KEY": "env.key"}
    assert read(environment=environment) == ("https://env:2", "env.key")
    assert read(url="http://arg:3", api_key="arg.key", environment=environment) == ("http://arg:3", "arg.key")


def test_a_saved_key_is_not_sent_to_another_server(environment: dict[str, str]) -> None:
    with pytest.raises(torpor.ConfigError, match="is for http://saved:1"):
        read(url="http://elsewhere", environment=environment)


def test_without_a_key_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(torpor.ConfigError, match="no API key") as raised:
        read(environment={"XDG_CONFIG_HOME": str(tmp_path)})
    assert "torpor serve" in str(raised.value.hint)


@pytest.mark.parametrize("text", ["url = ", "api_key = 3", '\udcff = "x"'])
def test_a_file_that_cannot_be_read_is_named(environment: dict[str, str], text: str) -> None:
    path = Path(environment["XDG_CONFIG_HOME"]) / "torpor" / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(torpor.ConfigError, match=r"config\.toml"):
        read(environment=environment)


@pytest.mark.parametrize("options", [{"url": "localhost:8000", "api_key": "a.b"}, {"api_key": "a.b\nX-Evil: 1"}])
def test_what_cannot_be_an_address_or_a_key_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(torpor.ConfigError):
        read(environment={}, **options)


def test_a_relative_configuration_folder_is_ignored_as_the_standard_says(tmp_path: Path) -> None:
    with pytest.raises(torpor.ConfigError) as raised:
        read(environment={"XDG_CONFIG_HOME": "here", "HOME": str(tmp_path)})
    assert str(tmp_path / ".config" / "torpor" / "config.toml") in str(raised.value.hint)


def test_the_key_is_in_no_repr_and_no_log(client: torpor.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    machine = client.new_machine()
    machine.run("a")
    shown = [
        repr(value) for value in (client, machine, vars(client), vars(client._connection), load_config(api_key=API_KEY))
    ]
    assert not any("s3cret" in text for text in (*shown, caplog.text))
