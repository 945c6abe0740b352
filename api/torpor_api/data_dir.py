"""Where Torpor keeps what it stores, unless it is told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """`TORPOR_DATA_DIR`, else `$XDG_DATA_HOME/torpor`, else `~/.local/share/torpor`; absolute, not created."""
    if chosen := os.environ.get("TORPOR_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base).expanduser().absolute() / "torpor"
    return Path.home() / ".local" / "share" / "torpor"
