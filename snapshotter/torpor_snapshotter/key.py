"""What may be the key of an object: a relative path that means the same in a folder and in a bucket."""

from __future__ import annotations

import re
from typing import Final

from torpor_snapshotter.store import StoreError

PROBE_PREFIX: Final = "check-"
"""What keys begin with that a store's `check` writes; one that died may have left its object."""
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_LONGEST_KEY: Final = 512
_LONGEST_NAME: Final = 200


class BadKey(StoreError):
    """A key that no store takes."""


def check_key(key: str) -> None:
    """Raise `BadKey` unless `key` is a relative path of plain names: letters, digits, `_`, `-`, and `.` inside."""
    if len(key) > _LONGEST_KEY or not all(is_plain_name(name) for name in key.split("/")):
        raise BadKey(f"{key!r} cannot be the key of an object.")


def is_plain_name(name: str) -> bool:
    """Whether `name` can stand between the slashes of a key."""
    return len(name) <= _LONGEST_NAME and _PLAIN_NAME.fullmatch(name) is not None


def pack_key(manifest_key: str) -> str:
    """The key of the pack that is made with a manifest."""
    return f"{manifest_key}.pack"
