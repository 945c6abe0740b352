from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, insert, select
from tests.support.ledger import ACCOUNT, accepted

from torpor_api.ledger import Accepted, SqlLedger
from torpor_api.ledger.database import driver
from torpor_api.ledger.schema import accounts, output_attempts
from torpor_worker.ledger import Hold


def add(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(insert(accounts).values(name=name, created_at=0))
        return name

    return work


def add_and_fail(connection: Connection) -> None:
    add("never")(connection)
    raise LookupError("on purpose")


async def names(ledger: SqlLedger) -> set[str]:
    return await ledger._readers.run(lambda connection: set(connection.scalars(select(accounts.c.name))))


async def test_an_operation_that_fails_is_undone_alone(ledger: SqlLedger) -> None:
    gate = threading.Event()
    first = asyncio.create_task(ledger._writer.run(lambda _: gate.wait(30)))
    rest = [asyncio.create_task(ledger._writer.run(work)) for work in (add("a"), add_and_fail, add("b"))]
    await asyncio.sleep(0)  # all of them are in the queue, behind the one that waits: they make one batch
    gate.set()

    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [answers[1], type(answers[2]), answers[3]] == ["a", LookupError, "b"]
    assert await names(ledger) == {ACCOUNT, "a", "b"}
    with pytest.raises(LookupError):
        await ledger._writer.run(add_and_fail)
    assert "never" not in await names(ledger)


async def test_results_come_only_after_the_commit(ledger: SqlLedger) -> None:
    await asyncio.gather(*(ledger._writer.run(add(f"account {number}")) for number in range(50)))

    assert len(await names(ledger)) == 51


async def test_what_was_asked_for_is_done_before_the_ledger_closes(ledger: SqlLedger) -> None:
    tasks = [asyncio.create_task(ledger._writer.run(add(f"account {number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await ledger.close()

    assert len(await asyncio.gather(*tasks)) == 50
    with pytest.raises(RuntimeError, match="closed"):
        await ledger.create_account("too-late")


async def test_a_caller_that_goes_away_does_not_stop_the_others(ledger: SqlLedger) -> None:
    gate = threading.Event()
    gone = asyncio.create_task(ledger._writer.run(lambda _: gate.wait(30)))
    other = asyncio.create_task(ledger._writer.run(add("a")))
    await asyncio.sleep(0)
    gone.cancel()
    gate.set()

    assert await other == "a"


async def test_an_early_operation_is_done_at_once_unless_the_writer_is_busy(ledger: SqlLedger) -> None:
    where: list[str] = []

    def work(_: Connection) -> None:
        where.append(threading.current_thread().name)

    await ledger._writer.run(work, early=True)
    gate = threading.Event()
    busy = asyncio.create_task(ledger._writer.run(lambda _: gate.wait(30)))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(ledger._writer.run(work, early=True))
    await asyncio.sleep(0)
    assert where == [threading.current_thread().name]
    gate.set()
    await asyncio.gather(busy, waiting)
    assert where[1:] == ["ledger-writer"]


async def test_an_early_operation_never_holds_the_event_loop_up_for_another_process(ledger: SqlLedger) -> None:
    path = await ledger._readers.run(
        lambda connection: driver(connection).execute("PRAGMA database_list").fetchone()[2]
    )
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    early = asyncio.create_task(ledger._writer.run(add("a"), early=True))
    await asyncio.sleep(0)
    other.execute("ROLLBACK")  # the loop is free to do it: whoever waits is the writer's thread
    other.close()
    assert await early == "a"


async def test_an_early_operation_that_fails_is_undone_and_what_follows_is_not(ledger: SqlLedger) -> None:
    with pytest.raises(LookupError):
        await ledger._writer.run(add_and_fail, early=True)
    assert await ledger._writer.run(add("a"), early=True) == "a"
    assert await ledger._writer.run(add("b")) == "b"

    assert await names(ledger) == {ACCOUNT, "a", "b"}


async def test_what_is_prepared_for_a_commit_is_not_believed_when_that_fails(ledger: SqlLedger) -> None:
    told: list[str] = []

    def overdraw(connection: Connection) -> str:
        driver(connection).execute("PRAGMA defer_foreign_keys = ON")
        row = {"entry_id": 12345, "attempt": 1}  # of an entry that there is none: the commit finds out
        connection.execute(insert(output_attempts).values(row))
        return "prepared"

    with pytest.raises(sqlite3.IntegrityError):
        await ledger._writer.run(overdraw, soon=told.append, then=lambda _: told.append("believed"))
    assert told == ["prepared"]


async def test_a_full_disk_fails_what_it_must_and_leaves_the_ledger_alive(ledger: SqlLedger, hold: Hold) -> None:
    def pages(statement: str) -> Callable[[Connection], int]:
        return lambda connection: driver(connection).execute(f"PRAGMA {statement}").fetchone()[0]

    full = await ledger._writer.run(pages("page_count"))
    unlimited = await ledger._writer.run(pages("max_page_count"))
    await ledger._writer.run(pages(f"max_page_count = {full}"))
    answers = await asyncio.gather(
        *(ledger.accept(ACCOUNT, hold.machine, "x" * 10_000, 1.0, when_busy="queue") for _ in range(5)),
        return_exceptions=True,
    )
    await ledger._writer.run(pages(f"max_page_count = {unlimited}"))

    assert any(isinstance(answer, Exception) for answer in answers)
    kept, _ = await ledger.instructions(ACCOUNT, hold.machine)
    assert [row.seq for row in kept] == [answer.seq for answer in answers if isinstance(answer, Accepted)][::-1]
    assert (await accepted(ledger, hold.machine)).seq == len(kept)


async def test_a_watch_wakes_after_the_commit_and_misses_nothing(ledger: SqlLedger, hold: Hold) -> None:
    with ledger.changes.watch(hold.machine) as watch, ledger.changes.watch("another") as other:
        await accepted(ledger, hold.machine)  # between a reader's read and its wait
        assert await watch.wait(30)
        waiting = asyncio.create_task(watch.wait(30))
        await ledger.delete_machine(ACCOUNT, hold.machine)
        assert await waiting
        assert not await other.wait(0)
