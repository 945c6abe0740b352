"""The file in which the CLI and the SDK of the same user find the server and a key."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from pathlib import Path


def client_settings_path() -> Path:
    """`$XDG_CONFIG_HOME/torpor/config.toml`, by default under `~/.config`."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".config"
    return base / "torpor" / "config.toml"


def save_client_settings(path: Path, url: str, api_key: str) -> bool:
    """Write `url` and `api_key`, readable by the owner only; False if the file is there and names another `url`.

    Raises OSError.
    """
    if path.exists() and _url_in(path) not in (None, url):
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, half_made = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # A JSON string of printable ASCII is a TOML string.
            file.write(f"url = {json.dumps(url)}\napi_key = {json.dumps(api_key)}\n")
        Path(half_made).rename(path)
    except BaseException:
        Path(half_made).unlink(missing_ok=True)
        raise
    return True


def _url_in(path: Path) -> str | None:
    try:
        url = tomllib.loads(path.read_text(encoding="utf-8")).get("url")
    except ValueError:
        return ""  # somebody's, and not readable: leave it alone
    return url if isinstance(url, str) else None
