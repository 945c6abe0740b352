"""Where the server is and which key opens it: from arguments, the environment, or the configuration file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from ._errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Config:
    """An address and a key. The key never shows in a `repr`."""

    url: str
    """Without a slash at its end."""
    api_key: SecretStr
    """`<account>.<secret>`."""


def config_file(environment: Mapping[str, str]) -> Path:
    """The configuration file of this user: `$XDG_CONFIG_HOME/torpor/config.toml`, by default under `~/.config`."""
    home = environment.get("XDG_CONFIG_HOME") or ""
    # The XDG specification says that a relative path is to be ignored.
    base = Path(home) if home.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".config"
    return base / "torpor" / "config.toml"


def load_config(
    url: str | None = None, api_key: str | None = None, environment: Mapping[str, str] | None = None
) -> Config:
    """The first of argument, `TORPOR_URL` and `TORPOR_API_KEY`, and file (`url`, `api_key`) that says each.

    A key from the file is sent only to the address that the file names: one given for another server by argument or
    environment does not get it. Raises `ConfigError` when there is no key, or the file cannot be read.
    """
    environment = os.environ if environment is None else environment
    chosen_url = url or environment.get("TORPOR_URL")
    chosen_key = api_key or environment.get("TORPOR_API_KEY")
    path = config_file(environment)
    saved = {} if chosen_url and chosen_key else _read(path)
    saved_url = saved.get("url", DEFAULT_URL)
    final_url = _checked_url(chosen_url or saved_url)
    if not chosen_key and "api_key" in saved:
        if final_url != _checked_url(saved_url):
            raise ConfigError(
                f"There is no API key for {final_url}; the one in {path} is for {saved_url}.",
                hint="Set TORPOR_API_KEY as well, or pass api_key=.",
            )
        chosen_key = saved["api_key"]
    if not chosen_key:
        raise ConfigError(
            "There is no API key.",
            hint=f"`torpor login` saves one in {path}, as does `torpor serve`. Or set TORPOR_API_KEY or pass api_key=.",
        )
    if not chosen_key.isascii() or not chosen_key.isprintable() or " " in chosen_key:
        raise ConfigError("The API key contains characters that no key has.", hint="It reads `<account>.<secret>`.")
    return Config(url=final_url, api_key=SecretStr(chosen_key))


def save_config(path: Path, url: str, api_key: str) -> None:
    """Write the configuration file, readable by its owner only: all of it or nothing. Raises `ConfigError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, half_made = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # A JSON string of printable ASCII is a TOML string.
            file.write(f"url = {json.dumps(url)}\napi_key = {json.dumps(api_key)}\n")
        Path(half_made).replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def _read(path: Path) -> dict[str, str]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(
            f"{path} is not valid: {error}.", hint='It holds `url = "..."` and `api_key = "..."`.'
        ) from None
    for name in ("url", "api_key"):
        if name in values and not isinstance(values[name], str):
            raise ConfigError(f"`{name}` in {path} is not a text.")
    return {name: values[name] for name in ("url", "api_key") if values.get(name)}


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is not the address of a server.", hint=f"It looks like {DEFAULT_URL}.")
    return url.rstrip("/")
