"""Fixtures of the worker's unit tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A host with one machine, `m`, and a worker that was started."""
    house = House(tmp_path)
    house.ledger.create("m", idle_seconds=3600)
    await house.start()
    yield house
    await house.close()
