"""The one writer: a thread that commits what was asked for in groups, each with one flush to the disk."""

from __future__ import annotations

import asyncio
import enum
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine

from torpor_api.ledger.changes import Changes
from torpor_api.ledger.database import BUSY_TIMEOUT_SECONDS, driver, is_busy

T = TypeVar("T")
BATCH_LIMIT = 256
CHECKPOINT_PAGES = 1000
"""The write-ahead log is copied into the database by the commit that makes it longer, but never by an early one."""


class Companion(Protocol):
    """Files that are written together with the transaction. Called from the writer's thread."""

    def mark(self) -> object:
        """A point to come back to."""
        ...

    def rewind(self, mark: Any) -> None:
        """Forget what was written since `mark`."""
        ...

    def flush(self) -> None:
        """Make what was written durable: the transaction that refers to it is committed next."""
        ...

    def forget(self) -> None:
        """The transaction failed: what is known about the files may be wrong, look at the rows again."""
        ...


@dataclass(slots=True)
class _Operation:
    work: Callable[[Connection], Any]
    touches: str | None
    early: bool
    soon: Callable[[Any], None] | None
    then: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = field(default=None)


class _Word(enum.Enum):
    """What is said to the thread besides operations."""

    FLUSH = enum.auto()
    STOP = enum.auto()


class Writer:
    """Runs operations one after another, in the order they came.

    A batch is one transaction with a savepoint for each operation: one that fails is undone alone. Results are
    delivered after the commit, and the event loop is woken once for each batch.

    A commit waits for the disk, unless all of the batch is early: then the disk is waited for after the delivery. An
    early operation is run at once, in the event loop's own thread, while the writer has nothing else to do and no other
    process writes.
    """

    def __init__(self, engine: Engine, companion: Companion, changes: Changes) -> None:
        self._connection = engine.connect()
        self._companion = companion
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Operation | _Word] = SimpleQueue()
        self._turn = threading.Lock()
        """Held by whoever uses the connection."""
        self._waits_for_disk = True
        self._log_file: int | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    async def run(
        self,
        work: Callable[[Connection], T],
        *,
        touches: str | None = None,
        early: bool = False,
        soon: Callable[[T], None] | None = None,
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run `work` in a transaction; its result once that is durable. `touches` names the machine it is about.

        With `early`, its result once it is committed: that outlives this process, and is durable a moment later, at
        any rate before anything that is committed after it.

        Both are called with the result, in the event loop: `soon` when all is done but the commit, to prepare what
        depends on it, and `then` after the commit, before anybody hears of the change. If the commit fails there is
        no `then`. A caller that is cancelled meanwhile does not take the operation back.
        """
        if self._closed:
            raise RuntimeError("the ledger is closed")
        operation = _Operation(work, touches, early, soon, then, self._loop.create_future())
        if early and self._queue.empty() and self._turn.acquire(blocking=False):
            try:
                done = self._commit_at_once(operation)
            finally:
                self._turn.release()
            if done:
                self._queue.put(_Word.FLUSH)
                self._deliver([operation])
                return cast(T, await operation.future)
        self._queue.put(operation)
        return cast(T, await operation.future)

    async def close(self) -> None:
        """Finish what is in the queue and end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(_Word.STOP)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        with self._connection as connection:
            more = True
            while more:
                batch, more = self._next_batch()
                early = all(operation.early for operation in batch)
                if batch:
                    with self._turn:
                        self._commit(connection, batch, waits_for_disk=not early)
                    self._call(self._deliver, batch)
                if early:
                    self._flush_log(connection)
        if self._log_file is not None:
            os.close(self._log_file)

    def _commit_at_once(self, operation: _Operation) -> bool:
        """Commit in the event loop's thread; False, and nothing done, if another process writes."""
        raw = driver(self._connection)
        raw.execute("PRAGMA busy_timeout = 0").close()
        try:
            self._commit(self._connection, [operation], waits_for_disk=False)
        finally:
            raw.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_SECONDS}").close()
        if operation.error is None or not is_busy(operation.error):
            return True
        operation.error = None
        return False

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the event loop was closed before the ledger
            self._loop.call_soon_threadsafe(function, *arguments)

    def _next_batch(self) -> tuple[list[_Operation], bool]:
        """What waits, and whether anything may follow. Nothing waits if only the disk is to be waited for."""
        batch: list[_Operation] = []
        try:
            while len(batch) < BATCH_LIMIT:
                operation = self._queue.get(block=not batch)
                if operation is _Word.STOP:
                    return batch, False
                if isinstance(operation, _Operation):
                    batch.append(operation)
                elif not batch and self._queue.empty():
                    return batch, True
        except Empty:
            pass
        return batch, True

    def _commit(self, connection: Connection, batch: list[_Operation], *, waits_for_disk: bool) -> None:
        raw = driver(connection)
        try:
            if waits_for_disk != self._waits_for_disk:
                raw.execute(f"PRAGMA synchronous = {'FULL' if waits_for_disk else 'NORMAL'}").close()
                raw.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES if waits_for_disk else 0}").close()
                self._waits_for_disk = waits_for_disk
            raw.execute("BEGIN IMMEDIATE")
            if len(batch) == 1:
                batch[0].result = batch[0].work(connection)
            else:
                for operation in batch:
                    self._run_in_savepoint(connection, raw, operation)
            for operation in batch:
                if operation.soon is not None and operation.error is None:
                    self._call(operation.soon, operation.result)
            self._companion.flush()
            raw.execute("COMMIT")
        except BaseException as error:  # whatever it is, the callers must hear of it and the thread must live
            self._companion.forget()
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            for operation in batch:
                operation.error = operation.error or error

    def _flush_log(self, connection: Connection) -> None:
        """Wait until what is committed is on the disk, as SQLite does in a commit with `synchronous = FULL`."""
        # One that fails is found out by the next commit, which has the disk wait for the same file.
        with suppress(OSError):
            if self._log_file is None:
                with self._turn:
                    _, _, database = driver(connection).execute("PRAGMA database_list").fetchone()
                self._log_file = os.open(f"{database}-wal", os.O_RDWR | os.O_CLOEXEC)
            os.fdatasync(self._log_file)

    def _run_in_savepoint(self, connection: Connection, raw: sqlite3.Connection, operation: _Operation) -> None:
        mark = self._companion.mark()
        raw.execute("SAVEPOINT operation")
        try:
            operation.result = operation.work(connection)
        except Exception as error:
            if not raw.in_transaction:  # SQLite gave up the whole transaction (disk full, an I/O error)
                raise
            operation.error = error
            self._companion.rewind(mark)
            raw.execute("ROLLBACK TO operation")
        raw.execute("RELEASE operation")

    def _deliver(self, batch: list[_Operation]) -> None:
        done = [operation for operation in batch if operation.error is None]
        for operation in done:
            if operation.then is not None:
                operation.then(operation.result)
        self._changes.notify({operation.touches for operation in done if operation.touches})
        for operation in batch:
            if operation.future.done():
                continue
            if operation.error is not None:
                operation.future.set_exception(operation.error)
            else:
                operation.future.set_result(operation.result)
