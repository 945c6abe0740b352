from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.ledger import awake, memory_folder, new_machine, open_ledger

from torpor_api.ledger import SqlLedger
from torpor_worker.ledger import Hold


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory, if there is that."""
    with memory_folder() as folder:
        yield Path(folder)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    """A ledger with one account and an open session."""
    ledger = await open_ledger(tmp_path)
    yield ledger
    await ledger.close()


@pytest.fixture
async def machine(ledger: SqlLedger) -> str:
    """A machine that is asleep and was never awake."""
    return await new_machine(ledger)


@pytest.fixture
async def hold(ledger: SqlLedger, machine: str) -> Hold:
    """The hold of the machine, which is awake and free."""
    return await awake(ledger, machine)
