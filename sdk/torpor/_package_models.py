"""What came of an installation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._events import Notice
from ._models import Record


class Package(Record):
    """A version of a package."""

    name: str
    version: str


class Installed(Record):
    """What was installed; nothing of what was there already."""

    seq: int
    """Of the command that did it."""
    installed: tuple[Package, ...]
    output: str
    """All that `pip` said."""
    notices: tuple[Notice, ...] = ()
    timings: Mapping[str, Any] = {}
