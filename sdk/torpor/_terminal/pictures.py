"""Pictures of a machine's: drawn where the terminal can, else written into a folder."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._events import png_of
from . import colours, graphics
from .safe_text import one_line

_SUFFIXES = {"image/jpeg": "jpg", "image/gif": "gif", "image/svg+xml": "svg"}
"""Forms that are only ever written to files."""


class Pictures:
    """Where pictures go: as the terminal shows them, or as files, each with its path printed."""

    def __init__(self, *, folder: Path | None, inline: bool) -> None:
        """`folder` None: what cannot be drawn is not kept. `inline`: the terminal is asked at the first picture."""
        self._folder = folder
        self._inline = inline
        self._protocol: graphics.Protocol | None = None
        self._saved = 0
        self._last_name = ""

    def show(self, data: Mapping[str, Any], name: str) -> str | None:
        """What to write for the picture in a bundle of forms; None if there is none, or nobody wants it.

        `name` is that of its file, without the number that tells it from others of that name.
        """
        found = picture_of(data)
        if found is None:
            return None
        suffix, body = found
        if suffix == "png" and self._inline:
            drawing = self._drawing(body)
            if drawing is not None:
                return f"{drawing}\n"
        return None if self._folder is None else f"[{self._save(body, suffix, name)}]\n"

    def _drawing(self, picture: bytes) -> str | None:
        if self._protocol is None:
            self._protocol = graphics.detect(os.environ)
            self._inline = self._protocol is not None
        if self._protocol is None:
            return None
        width = graphics.width_pixels() if self._protocol == "sixel" else None
        return graphics.drawn(self._protocol, picture, width)

    def _save(self, body: bytes, suffix: str, name: str) -> str:
        assert self._folder is not None  # noqa: S101 - the caller has looked
        self._saved = self._saved + 1 if name == self._last_name else 1
        self._last_name = name
        path = self._folder / f"{name}-{self._saved}.{suffix}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        except OSError as error:
            return one_line(f"a picture; {path} cannot be written: {error.strerror or error}")
        return str(path)


def picture_of(data: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """The suffix and the bytes of the picture in a bundle of forms."""
    png = png_of(data)
    if png:
        return "png", png
    for form, suffix in _SUFFIXES.items():
        text = data.get(form)
        if isinstance(text, str):
            if suffix == "svg":
                return suffix, text.encode()
            with contextlib.suppress(binascii.Error, ValueError):
                if body := base64.b64decode(text):
                    return suffix, body
    return None


def for_terminal(machine_name: str) -> Pictures:
    """Pictures of a machine on the terminal; those that it cannot show are kept in the user's cache.

    `$XDG_CACHE_HOME/torpor/pictures/MACHINE`, by default under `~/.cache`.
    """
    home = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(home) if home.startswith("/") else Path.home() / ".cache"
    folder = base / "torpor" / "pictures" / (quote(machine_name, safe="").lstrip(".") or "machine")
    return Pictures(folder=folder, inline=sys.stdout.isatty() and not colours.is_dumb())
