"""What a model asks for: its arguments, which may be anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FENCED = re.compile(r"\s*```[a-zA-Z0-9]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_OUTPUT = re.compile(r"\s*%output\s+(\d{1,15})(?:\s+(\d{1,15}))?\s*")


class BadArguments(Exception):
    """The arguments are not what the tool takes; the message is for the model."""


@dataclass(frozen=True)
class AskedToRun:
    """Code to run."""

    code: str
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class AskedForOutput:
    """The code `%output SEQ POSITION`: what an earlier call showed, from a character on. The machine runs nothing."""

    seq: int
    position: int = 0


def asked(arguments: Mapping[str, Any] | str) -> AskedToRun | AskedForOutput:
    """What a model asks for, in arguments as a mapping or as JSON. Raises `BadArguments`."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise BadArguments(f'The arguments are not JSON ({error}): they read {{"code": "..."}}.') from None
    if not isinstance(arguments, Mapping) or not isinstance(code := arguments.get("code"), str):
        raise BadArguments('The arguments must be an object with a text `code`: {"code": "..."}.')
    seconds = arguments.get("timeout_seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        raise BadArguments("`timeout_seconds` must be a number of seconds.")
    if fenced := _FENCED.fullmatch(code):  # some models write it as they write it in a conversation
        code = fenced[1]
    if output := _OUTPUT.fullmatch(code):
        return AskedForOutput(int(output[1]), int(output[2] or 0))
    return AskedToRun(code, seconds)
