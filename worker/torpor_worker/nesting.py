"""How deep a JSON value that was made in a sandbox may be nested, so that every part of the host can write it again."""

from __future__ import annotations

from typing import Any, Final

LEVELS_LIMIT: Final = 100
"""Far from where Python's own encoder gives up, however deep in other calls it is used."""


def too_deep(value: Any) -> bool:
    """Whether lists and dictionaries in `value` are nested deeper than the limit."""
    level = [value]
    for _ in range(LEVELS_LIMIT):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(inner, dict | list) for inner in level)
