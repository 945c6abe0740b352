"""How both clients speak HTTP: headers, answers, and what is no answer of a Torpor server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Iterable
from importlib.metadata import version
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError

from ._calls import Call
from ._config import Config
from ._errors import ProtocolError

LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=60.0)
"""As many at once as are asked for, since each may wait for code for hours; kept for less long than by the server."""
_CONNECT_SECONDS = 10.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Model = TypeVar("Model", bound=BaseModel)


def headers(config: Config) -> dict[str, str]:
    """Headers of every request. The key is in them: never show them."""
    return {
        "Authorization": f"Bearer {config.api_key.get_secret_value()}",
        "User-Agent": f"torpor-python/{version('torpor')}",
    }


def uses_proxies(config: Config) -> bool:
    """Whether the environment's proxies apply: not for a server on this computer."""
    return urlsplit(config.url).hostname not in _LOOPBACK


def verification(config: Config) -> ssl.SSLContext | bool:
    """How certificates are checked. Loading those of the world takes longer than a call on this computer."""
    return True if config.url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def request(client: httpx2.Client | httpx2.AsyncClient, call: Call) -> httpx2.Request:
    """One attempt at a call."""
    return client.build_request(
        call.method,
        call.path,
        json=call.body,
        params=call.query or None,
        headers=call.headers,
        timeout=httpx2.Timeout(call.answer_seconds, connect=min(_CONNECT_SECONDS, call.answer_seconds)),
    )


def upload(
    client: httpx2.Client | httpx2.AsyncClient,
    call: Call,
    pieces: Iterable[bytes] | AsyncIterable[bytes],
    size: int | None,
) -> httpx2.Request:
    """One attempt at a call with a body."""
    length = {} if size is None else {"Content-Length": str(size)}
    return client.build_request(
        call.method,
        call.path,
        content=pieces,
        params=call.query or None,
        headers={**call.headers, **length, "Content-Type": "application/octet-stream"},
        timeout=httpx2.Timeout(call.answer_seconds, connect=_CONNECT_SECONDS),
    )


def retry_after(response: httpx2.Response) -> str | None:
    """What the server says about when to ask again."""
    return response.headers.get("Retry-After")


def error_body(response: httpx2.Response) -> object:
    """The JSON of an answer that is no success; None for a success, whose body may be a stream not read yet."""
    if response.is_success:
        return None
    if response.request.method == "HEAD":  # which is answered without a body
        return {"code": response.headers.get("Torpor-Error")}
    return json_body(response)


def json_body(response: httpx2.Response) -> object:
    """The body's JSON; None if it is none."""
    try:
        return response.json()
    except ValueError:
        return None


def parsed(response: httpx2.Response, model: type[Model]) -> Model:
    """The answer as a record. Raises `ProtocolError` if it is something else."""
    try:
        return model.model_validate(json_body(response))
    except ValidationError as error:
        raise ProtocolError(
            f"The answer of {response.request.url.path} is not what a Torpor server says.",
            hint="Is TORPOR_URL the address of a Torpor server?",
        ) from error
