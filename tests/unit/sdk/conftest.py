"""A stub server, clients for it, and an environment in which no settings of the host's are found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.stub_server import API_KEY, StubServer, stub_server

import torpor

IMPATIENT = torpor.RetryPolicy(total_seconds=10, first_contact_seconds=0.2, first_delay_seconds=0.01)


@pytest.fixture(autouse=True)
def no_settings_of_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TORPOR_URL", "TORPOR_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with stub_server() as stub:
        yield stub


@pytest.fixture
def client(stub: StubServer) -> Iterator[torpor.Client]:
    with torpor.Client(url=stub.url, api_key=API_KEY, retry=IMPATIENT) as client:
        yield client


@pytest.fixture
def machine(client: torpor.Client) -> torpor.Machine:
    return client.new_machine()


@pytest.fixture
async def async_client(stub: StubServer) -> AsyncIterator[torpor.AsyncClient]:
    async with torpor.AsyncClient(url=stub.url, api_key=API_KEY, retry=IMPATIENT) as client:
        yield client
