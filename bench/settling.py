"""Waiting until a server has nothing to do but what it is asked: templates stored, the pool full."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

_LIMIT_SECONDS = 180.0
_CALM_SECONDS = 2.0
"""How long there must be nothing new to see."""
_POLL_SECONDS = 0.2


def wait_until_settled(data_dir: Path, *templates: str) -> None:
    """Until these templates are stored, a sandbox waits for a new machine, and none has come or gone for 2 s.

    Raises `RuntimeError` after three minutes.
    """
    deadline = time.monotonic() + _LIMIT_SECONDS
    seen: list[tuple[str, str]] = []
    since = time.monotonic()
    while time.monotonic() < deadline:
        held = _held(data_dir)
        if held != seen or not any(whose == "warm" for _, whose in held) or not _stored(data_dir, templates):
            seen, since = held, time.monotonic()
        elif time.monotonic() - since >= _CALM_SECONDS:
            return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"The server has not settled: templates {templates}, sandboxes {seen}.")


def _held(data_dir: Path) -> list[tuple[str, str]]:
    """Every sandbox, and the machine that it belongs to, or `warm`; see `torpor_worker.beginnings`."""
    found = []
    for file in (data_dir / "sandboxes" / "machines").glob("*/machine"):
        try:
            found.append((file.parent.name, file.read_text()))
        except FileNotFoundError:
            continue
    return sorted(found)


def _stored(data_dir: Path, templates: tuple[str, ...]) -> bool:
    """Whether the ledger knows the manifest of each."""
    with closing(sqlite3.connect(f"file:{data_dir / 'torpor.db'}?mode=ro", uri=True)) as ledger:
        rows = ledger.execute("SELECT name FROM templates WHERE manifest_sha256 IS NOT NULL").fetchall()
    return {name for (name,) in rows}.issuperset(templates)
