"""E2B's options of a call, of which most mean nothing here, and what is asked for and is not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict

from .._async_client import AsyncClient
from .._client import Client
from .e2b_errors import InvalidArgumentException

THEIR_KEYS = "e2b_"
"""What API keys of E2B's begin with."""


class ApiParams(TypedDict, total=False):
    """What every call of E2B's takes. Only `api_key` means something: one of Torpor's is used, one of E2B's is not."""

    request_timeout: float | None
    retries: int | None
    headers: dict[str, str] | None
    api_headers: dict[str, str] | None
    api_key: str | None
    validate_api_key: bool | None
    domain: str | None
    api_url: str | None
    debug: bool | None
    proxy: Any
    sandbox_url: str | None
    http_version: str | None


class Options(ApiParams, total=False):
    """And a client of Torpor's, instead of the one with the settings of environment and configuration file."""

    client: Client | None


class AsyncOptions(ApiParams, total=False):
    """`Options`, with a client for asyncio."""

    client: AsyncClient | None


def check_options(options: Mapping[str, object]) -> None:
    """Raise `TypeError` for an option that E2B does not have either."""
    for name in options:
        if name not in Options.__optional_keys__:
            raise TypeError(f"unexpected keyword argument {name!r}")


def own_key(options: Mapping[str, Any]) -> str | None:
    """The key of Torpor's that is among the options; None for that of environment and configuration file."""
    check_options(options)
    key: str | None = options.get("api_key")
    return None if key is None or key.startswith(THEIR_KEYS) else key


def refuse(**asked: object) -> None:
    """Raise `InvalidArgumentException` for what is asked for and is not there."""
    for name, value in asked.items():
        if value:
            raise InvalidArgumentException(f"`{name}` is not there.")


def seconds(timeout: float | None, default: float) -> float:
    """A time-out: None is the default, and 0 the longest that the server allows."""
    return default if timeout is None else timeout or math.inf
