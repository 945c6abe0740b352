from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.api import Api, application, behind_a_server, new_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, to copy."""
    path = tmp_path_factory.mktemp("database") / "torpor.db"
    asyncio.run(new_database(path))
    return path


@pytest.fixture
async def api(tmp_path: Path, database: Path) -> AsyncIterator[Api]:
    """The application, called without a network."""
    async with application(tmp_path, database) as api:
        yield api


@pytest.fixture
async def live(api: Api) -> AsyncIterator[Api]:
    """The same application behind a real server on the loopback."""
    async with behind_a_server(api) as live:
        yield live
