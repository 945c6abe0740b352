"""Reads, in a few threads with a connection each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from torpor_api.ledger.database import driver

T = TypeVar("T")
READERS = 3
CACHE_KIBIBYTES = 128


class Readers:
    """Runs reads, each in one short transaction that sees everything committed before it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mine = threading.local()
        self._connections: list[Connection] = []
        self._executor = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-reader")

    async def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`; it must be whole, not a cursor."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, work)

    async def close(self) -> None:
        """End the threads and close their connections."""
        await asyncio.to_thread(self._executor.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        driver(connection).execute("PRAGMA query_only = ON")
        driver(connection).execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
        self._mine.connection = connection
        self._connections.append(connection)
        return connection

    def _read(self, work: Callable[[Connection], T]) -> T:
        # Not when the thread starts: a pool whose thread once failed to (no file descriptor was left) stays broken.
        connection: Connection = getattr(self._mine, "connection", None) or self._connect()
        raw = driver(connection)
        raw.execute("BEGIN")
        try:
            return work(connection)
        finally:
            if raw.in_transaction:
                raw.execute("COMMIT")
