"""A folder's entries, as a machine tells them and as clients are told: nothing of it is believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from torpor_api.file_paths import in_address, shown
from torpor_api.results import moment
from torpor_worker.files import FileRefused
from torpor_worker.guest.file_access import KINDS

LIST_LIMIT_BYTES: Final = 32 << 20


async def said(pieces: AsyncIterator[bytes], limit: int) -> list[dict[str, Any]]:
    """The entries that a machine tells, as lines of JSON, of `limit` at most. Raises `FileRefused`."""
    lines = bytearray()
    async for piece in pieces:
        lines += piece
        if len(lines) > LIST_LIMIT_BYTES:
            raise FileRefused("file_failed", "The list is too long; ask for fewer entries at once.")
    try:
        return [_entry(json.loads(line)) for line in lines.splitlines()[:limit]]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError):
        raise FileRefused("file_failed", "The machine answered with something that is no list.") from None


def _entry(fields: dict[str, Any]) -> dict[str, Any]:
    name, target, kind = str(fields["name"]), fields.get("target"), str(fields["kind"])
    in_address(name)  # what is no path is a ValueError
    if kind not in KINDS.values():
        raise ValueError(kind)
    return {
        "name": name,
        "kind": kind,
        "size": int(fields["size"]),
        "mode": f"{int(fields['mode']) & 0o7777:04o}",
        "modified": moment(datetime.fromtimestamp(max(0, int(fields["modified_ns"])) / 1e9, UTC)),
        "target": None if target is None else shown(str(target)),
    }


def told(folder: str, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with the path that leads to it, its name made readable."""
    name = entry["name"]
    path = f"{folder.rstrip('/')}/{name}" if folder else name
    return {"name": shown(name), "path": in_address(path)} | {key: entry[key] for key in entry if key != "name"}
