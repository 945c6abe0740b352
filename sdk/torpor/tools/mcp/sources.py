"""For whom a request of a model's is done: whose key, and which machine if it names none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from pydantic import Field

from ..._async_client import AsyncClient
from ..._async_machine import AsyncMachine
from ..._errors import TorporError

DEFAULT_MACHINE = "mcp"
"""The alias of the machine that is used where nothing names one."""
MACHINE_HEADER = "torpor-machine"
_CLIENTS = 64

Request = Context | ServerRequestContext[Any, Any]

MachineArgument = Annotated[str | None, Field(description="Name of another machine; normally left out.")]
NewMachineArgument = Annotated[
    str | None,
    Field(description="Name of another machine, or one of your choosing for a new one; normally left out."),
]


class Source(Protocol):
    """Where the client of a request comes from, and the machine."""

    def client(self, request: Request) -> AsyncClient:
        """The client with the requester's key. Raises `TorporError`."""
        ...

    def machine(self, request: Request, name: str | None, *, create: bool = False) -> AsyncMachine:
        """The machine of this name or alias, or the requester's own. Its first call makes it only if it may."""
        ...


class OwnSource:
    """The user's own key, as over standard input: whoever started the process asks."""

    def __init__(self, client: AsyncClient, machine: str = DEFAULT_MACHINE) -> None:
        self._client = client
        self._machine = machine

    def client(self, request: Request) -> AsyncClient:
        """See `Source`."""
        return self._client

    def machine(self, request: Request, name: str | None, *, create: bool = False) -> AsyncMachine:
        """See `Source`."""
        return self._client.machine(name or self._machine, create=create)


class HeaderSource:
    """The key that each request carries, as over HTTP; `Torpor-Machine` names its machine."""

    def __init__(self, url: str, machine: str = DEFAULT_MACHINE) -> None:
        self._url = url
        self._machine = machine
        self._clients: OrderedDict[str, AsyncClient] = OrderedDict()

    def client(self, request: Request) -> AsyncClient:
        """See `Source`."""
        token = bearer_token(headers_of(request))
        if token is None:
            raise TorporError(
                "The request carries no API key.", hint="Send `Authorization: Bearer <account>.<secret>`."
            )
        client = self._clients.pop(token, None) or AsyncClient(url=self._url, api_key=token)
        self._clients[token] = client
        while len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)  # its connections end with the last request that uses them
        return client

    def machine(self, request: Request, name: str | None, *, create: bool = False) -> AsyncMachine:
        """See `Source`."""
        own = headers_of(request).get(MACHINE_HEADER) or self._machine
        return self.client(request).machine(name or own, create=create)

    async def close(self) -> None:
        """Close every client."""
        while self._clients:
            await self._clients.popitem()[1].close()


def headers_of(request: Request) -> Mapping[str, str]:
    """The HTTP headers of a request; none over standard input."""
    if isinstance(request, Context):
        request = request.request_context
    headers: Mapping[str, str] = getattr(request.request, "headers", None) or {}
    return headers


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """The API key of a request, None if it carries none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
