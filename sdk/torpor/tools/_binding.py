"""Which machine a conversation has."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import TypeVar, overload

from .._async_client import AsyncClient
from .._async_machine import AsyncMachine
from .._client import Client
from .._machine import Machine

M = TypeVar("M", Machine, AsyncMachine)

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_OWN_NAME = re.compile(r"[A-Za-z0-9]{16}")


@overload
def machine_of(client: Client, conversation_id: str) -> Machine: ...
@overload
def machine_of(client: AsyncClient, conversation_id: str) -> AsyncMachine: ...
def machine_of(client: Client | AsyncClient, conversation_id: str) -> Machine | AsyncMachine:
    """The machine of a conversation or thread: made at its first use, and found again by the same id for ever.

    Its alias is the id itself where that can be one, else a digest of it.

    >>> machine_of(client, "thread-42").name
    'thread-42'
    """
    return client.machine(alias_of(conversation_id))


@cache
def default_client() -> Client:
    """The client that a framework's tool uses when it is given none, one for all of them. Raises `ConfigError`."""
    return Client()


def alias_of(conversation_id: str) -> str:
    """The alias of a conversation's machine. An id that is a machine's own name is no alias, and is digested too."""
    usable = _ALIAS.fullmatch(conversation_id) and not _OWN_NAME.fullmatch(conversation_id)
    if usable and conversation_id not in ("new", "list"):
        return conversation_id
    digest = hashlib.sha256(conversation_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"conversation-{digest[:32]}"


def idempotency_key(call_id: str | None, code: str, timeout_seconds: float | None = None) -> str | None:
    """The word under which a framework's call is run once, however often the framework sends it.

    Some models count their calls anew in each answer, so that ids return with other code: that is another call.
    """
    if call_id is None:
        return None
    words = f"{call_id}\0{timeout_seconds}\0{code}".encode("utf-8", "surrogatepass")
    return f"call {hashlib.sha256(words).hexdigest()}"
