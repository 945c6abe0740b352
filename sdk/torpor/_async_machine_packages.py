"""Packages of a machine, for asyncio: the twin of `_machine_packages`."""

from __future__ import annotations

from collections.abc import Sequence

from . import _http, _package_calls
from ._async_connection import AsyncConnection
from ._package_models import Installed


class AsyncPackages:
    """The packages of a machine: `machine.packages`.

    A machine has no network. What its `pip` wants the server fetches, if its operator allows it, and hands in.
    """

    def __init__(self, connection: AsyncConnection, machine_name: str) -> None:
        self._connection = connection
        self._machine_name = machine_name

    async def install(
        self,
        packages: str | Sequence[str],
        *,
        upgrade: bool = False,
        timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Installed:
        """Install packages, beside whatever else runs there; code may import them at once.

        Args:
            packages: One or several, as after `pip install`: `name`, `name>=2`, `name[extra]`.
            upgrade: Install a newer version though one that does is there.
            timeout_seconds: After so much running time it is ended; 300 by default.
            idempotency_key: The same key does not install twice, and gets the first answer.

        >>> (await machine.packages.install("tidy")).installed
        (Package(name='tidy', version='1.2'),)

        Raises `PackagesNotInstalled`, which says why.
        """
        call = _package_calls.install(
            self._machine_name,
            packages,
            upgrade=upgrade,
            timeout_seconds=timeout_seconds,
            idempotency_key=idempotency_key,
        )
        return _http.parsed(await self._connection.send(call), Installed)
