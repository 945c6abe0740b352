"""Fixtures of the worker's unit tests."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from tests.support.house import House


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """Hundreds of intended crashes are not worth their formatted tracebacks."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A host with one machine, `m`, and a worker that was started."""
    house = House(tmp_path)
    house.ledger.create("m", idle_seconds=3600)
    await house.start()
    yield house
    await house.close()
