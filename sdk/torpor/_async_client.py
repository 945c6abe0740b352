"""The asynchronous client."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import httpx2

from . import _calls, _http
from ._async_connection import AsyncConnection
from ._async_machine import AsyncMachine
from ._calls import UNSET, Unset
from ._config import load_config
from ._models import Account, ApiKey, ApiKeys, MachineList, NewApiKey, NewMachine, RunAnswer
from ._result import Result, result_of_answer
from ._retry import RetryPolicy


class AsyncClient:
    """Talks to a Torpor server from asyncio; the same surface as `Client`, awaited.

    >>> async with torpor.AsyncClient() as client:
    ...     machine = await client.new_machine()
    ...     result = await machine.run("a = 3")
    ...     print((await machine.run("a + 5")).value)
    8
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        api_key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Raises `ConfigError` when there is no API key. `transport` replaces the network, as in tests."""
        self._connection = AsyncConnection(load_config(url, api_key), retry or RetryPolicy(), transport)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    async def whoami(self) -> str:
        """The name of the account that the key belongs to.

        >>> await client.whoami()
        'local'
        """
        return _http.parsed(await self._connection.send(_calls.whoami()), Account).account

    async def keys(self) -> list[ApiKey]:
        """The account's API keys, oldest first, without their secrets.

        >>> (await client.keys())[0].current
        True
        """
        return list(_http.parsed(await self._connection.send(_calls.keys()), ApiKeys).keys)

    async def new_key(self, name: str = "") -> NewApiKey:
        """Make another API key of this account's; `name` says later what it was for. Its secret is shown only here.

        >>> (await client.new_key("laptop")).api_key
        SecretStr('**********')
        """
        return _http.parsed(await self._connection.send(_calls.new_key(name)), NewApiKey)

    async def revoke_key(self, key_id: str) -> None:
        """Let a key in no longer, from now on. Raises `KeyNotFound`, and `LastKey` for the only one that there is.

        >>> key = await client.new_key("an old laptop")
        >>> await client.revoke_key(key.id)
        """
        await self._connection.send(_calls.revoke_key(key_id))

    async def new_machine(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        memory_mb: int | None = None,
        idle_seconds: float | Unset | None = UNSET,
        template: str | None = None,
        durability: str | None = None,
        recovery: str | None = None,
        replay_seconds: float | None = None,
        alias: str | None = None,
    ) -> AsyncMachine:
        """A new machine, which is there until it is deleted.

        Args:
            tags: Words of your own to find it by, such as `{"user": "42"}`.
            memory_mb: The memory it may use; the server's default is 1024.
            idle_seconds: After so long without work it falls asleep; None: it stays awake. The server's default is 60.
            template: What it starts from: `python`, which is the default, or `data` with NumPy, pandas, Matplotlib and
                scikit-learn imported already, so that importing them takes no time.
            durability: `interval`, which is the default: answers are in the log, and after a crash what no save has is
                executed again. Or `instruction`: each answer waits for a save, and nothing is ever executed again.
            recovery: What becomes of what it did since its last save when its process is lost: `replay`, which is the
                default, executes it again, `rollback` leaves it behind, so that nothing is executed twice.
            replay_seconds: How much running time a recovery may execute again; the server's default is 300.
            alias: A name of your own for it. If the account has a machine of this name, that is returned as it is.

        >>> machine = await client.new_machine(tags={"user": "42"}, idle_seconds=None)
        >>> (await machine.detail()).tags
        {'user': '42'}
        """
        settings = {
            "template": template,
            "durability": durability,
            "recovery": recovery,
            "replay_seconds": replay_seconds,
        }
        call = _calls.new_machine(tags, memory_mb, idle_seconds, settings)
        if alias is not None:
            call = _calls.get_or_create(alias, call)
        return self.machine(_http.parsed(await self._connection.send(call), NewMachine).machine_name)

    def machine(self, name: str, *, create: bool = True) -> AsyncMachine:
        """The machine of this name: its own of 16 letters and digits, or an alias, a name that you chose for it.

        Nothing is asked yet. With an alias, the first call makes the machine if there is none, unless `create` is
        false; with a machine's own name it says whether it exists. An alias has 1 to 63 letters, digits, dots,
        underscores and hyphens.

        >>> (await client.machine("analysis").run("a = 3; a + 5")).value
        '8'
        """
        making = _calls.get_or_create(name) if create and _calls.is_alias(name) else None
        return AsyncMachine(self._connection.making(making), name)

    async def machines(self, *, tags: Mapping[str, str] | None = None, limit: int | None = None) -> list[AsyncMachine]:
        """The account's machines, newest first: those that have all of these tags, each with its `info`.

        At most `limit` of them; fetched page by page.

        >>> machine = await client.new_machine(tags={"project": "mars"})
        >>> machine.name in [found.name for found in await client.machines(tags={"project": "mars"})]
        True
        """
        found: list[AsyncMachine] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            call = _calls.list_machines(tags, None if limit is None else limit - len(found), cursor)
            page = _http.parsed(await self._connection.send(call), MachineList)
            found += [AsyncMachine(self._connection, info.name, info) for info in page.machines]
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    async def run(self, code: str, *, timeout_seconds: float | None = None, timings: bool = False) -> Result:
        """Run code on a new machine; the result says its name. Arguments as for a machine's `run`.

        >>> result = await client.run("a = 3")
        >>> (await client.machine(result.machine_name).run("a + 5")).value
        '8'
        """
        call = _calls.run(None, code, timeout_seconds=timeout_seconds, timings=timings)
        return result_of_answer(_http.parsed(await self._connection.send(call), RunAnswer))

    async def close(self) -> None:
        """Close the connections. Machines do not notice.

        >>> client = torpor.AsyncClient()
        >>> await client.whoami()
        'local'
        >>> await client.close()
        """
        await self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient(url={self.url!r})"
