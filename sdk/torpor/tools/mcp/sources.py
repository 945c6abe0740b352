"""For whom a request of a model's is done: whose key, and which machine if it names none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from ..._async_client import AsyncClient
from ..._errors import TorporError

DEFAULT_MACHINE = "mcp"
"""The alias of the machine that is used where nothing names one."""
MACHINE_HEADER = "torpor-machine"
_CLIENTS = 64


class Source(Protocol):
    """Where the client of a request comes from."""

    def client(self, headers: Mapping[str, str] | None) -> AsyncClient:
        """The client with the requester's key. Raises `TorporError`."""
        ...

    def machine_name(self, headers: Mapping[str, str] | None) -> str:
        """The machine, by name or alias, for requests that name none."""
        ...


class OwnSource:
    """The user's own key, as over standard input: whoever started the process asks."""

    def __init__(self, client: AsyncClient, machine: str = DEFAULT_MACHINE) -> None:
        self._client = client
        self._machine = machine

    def client(self, headers: Mapping[str, str] | None) -> AsyncClient:
        """See `Source`."""
        return self._client

    def machine_name(self, headers: Mapping[str, str] | None) -> str:
        """See `Source`."""
        return self._machine


class HeaderSource:
    """The key that each request carries, as over HTTP; `Torpor-Machine` names its machine."""

    def __init__(self, url: str, machine: str = DEFAULT_MACHINE) -> None:
        self._url = url
        self._machine = machine
        self._clients: OrderedDict[str, AsyncClient] = OrderedDict()

    def client(self, headers: Mapping[str, str] | None) -> AsyncClient:
        """See `Source`."""
        token = bearer_token(headers)
        if token is None:
            raise TorporError(
                "The request carries no API key.", hint="Send `Authorization: Bearer <account>.<secret>`."
            )
        client = self._clients.pop(token, None) or AsyncClient(url=self._url, api_key=token)
        self._clients[token] = client
        while len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)  # its connections end with the last request that uses them
        return client

    def machine_name(self, headers: Mapping[str, str] | None) -> str:
        """See `Source`."""
        return (headers or {}).get(MACHINE_HEADER) or self._machine


def bearer_token(headers: Mapping[str, str] | None) -> str | None:
    """The API key of a request, None if it carries none."""
    scheme, _, token = (headers or {}).get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
