from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, insert, select, update
from sqlalchemy.exc import IntegrityError
from tests.support.ledger import ACCOUNT, accepted, started

from torpor_api.ledger import SqlLedger
from torpor_api.ledger.database import open_engine
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.schema import entries, machines, metadata
from torpor_worker.ledger import Hold


async def test_the_migrations_make_exactly_the_tables_of_the_schema(ledger: SqlLedger, tmp_path: Path) -> None:
    await ledger.close()
    engine = open_engine("sqlite:", tmp_path)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_several_processes_may_start_at_once_on_a_new_database(tmp_path: Path) -> None:
    ledgers = await asyncio.gather(*(SqlLedger.open("sqlite:", tmp_path) for _ in range(3)))
    await ledgers[0].create_account(ACCOUNT)

    assert [await ledger.has_accounts() for ledger in ledgers] == [True, True, True]
    for ledger in ledgers:
        await ledger.close()


async def test_a_database_may_lie_elsewhere_and_other_kinds_are_refused(tmp_path: Path) -> None:
    ledger = await SqlLedger.open(f"sqlite:///{tmp_path}/elsewhere.db", tmp_path / "data")
    await ledger.close()

    assert (tmp_path / "elsewhere.db").exists()
    with pytest.raises(ValueError, match="only sqlite"):
        await SqlLedger.open("postgresql://localhost/torpor", tmp_path)


NONSENSE = {
    "two entries that run": update(entries).where(entries.c.seq == 1).values(started_at=1, position=9, attempt=1),
    "a seq twice": update(entries).where(entries.c.seq == 1).values(seq=0),
    "a position twice": update(entries).where(entries.c.seq == 1).values(started_at=1, position=0, attempt=1),
    "a position without a start": update(entries).where(entries.c.seq == 1).values(position=9),
    "a result before the end": update(entries).where(entries.c.seq == 0).values(value="1"),
    "a value and an error": update(entries).values(finished_at=1, runtime_ms=1, value="1", error="E: 1"),
    "an end without a result": update(entries).where(entries.c.seq == 0).values(finished_at=1),
    "a machine that is ready and not held": update(machines).values(session_id=None),
    "a machine that is parked and held": update(machines).values(parked_reason="reason"),
    "a session that does not exist": update(machines).values(session_id="nobody"),
    "a head that was never allotted": update(machines).values(head_generation=0),
    "an entry of no machine": insert(entries).values(
        machine_id=99, kind="execute", seq=0, timeout_seconds=1, code="", accepted_at=1
    ),
    "text where a number belongs": update(machines).values(epoch="one"),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_the_database_itself_refuses(ledger: SqlLedger, hold: Hold, nonsense: str) -> None:
    await started(ledger, hold)
    await accepted(ledger, hold.machine)

    with pytest.raises(IntegrityError):
        await ledger._writer.run(lambda connection: connection.execute(NONSENSE[nonsense]).rowcount)


async def test_readers_that_could_not_connect_once_read_later(ledger: SqlLedger, tmp_path: Path) -> None:
    engine = open_engine("sqlite:", tmp_path)
    failures = [OSError("too many open files")]

    @event.listens_for(engine, "do_connect")
    def connect(*_: object) -> None:
        if failures:
            raise failures.pop()

    readers = Readers(engine)
    with pytest.raises(OSError, match="too many"):
        await readers.run(lambda connection: connection.scalar(select(1)))
    assert await readers.run(lambda connection: connection.scalar(select(1))) == 1
    await readers.close()
    engine.dispose()
