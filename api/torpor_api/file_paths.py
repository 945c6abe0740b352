"""Paths of files as they stand in addresses: percent-encoded bytes, of any kind. Inside, as `os.fsdecode` has it."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote_to_bytes

from starlette.types import Scope

from torpor_api.errors import InvalidPath

LONGEST_BYTES = 4096
_PARTS_BEFORE = 5
"""Of `/v1/machine/{name}/files/{path}`, with the empty one in front."""


def path_of(scope: Scope) -> str:
    """The path in an address, whatever bytes it has. Raises `InvalidPath`."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    parts = raw.split(b"?")[0].split(b"/", _PARTS_BEFORE)
    return _checked(unquote_to_bytes(parts[-1]) if len(parts) > _PARTS_BEFORE else b"")


def path_in_query(scope: Scope, name: str) -> str | None:
    """A path in a query, None without one. Raises `InvalidPath`."""
    found = parse_qs(scope.get("query_string", b"").decode("latin-1"), errors="surrogateescape").get(name)
    return None if not found else _checked(found[-1].encode("utf-8", "surrogateescape"))


def in_address(path: str) -> str:
    """A path as it stands behind `/files/`: one segment, which nobody on the way shortens."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="")


def shown(path: str) -> str:
    """For people: bytes that are no UTF-8 as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _checked(path: bytes) -> str:
    if b"\0" in path or len(path) > LONGEST_BYTES:
        raise InvalidPath(f"A path has at most {LONGEST_BYTES} bytes, and no zero byte among them.")
    return path.decode("utf-8", "surrogateescape")
