"""A machine that is deleted while its code and its commands are followed, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


@pytest.fixture
def client(server: ServerProcess) -> Iterator[torpor.Client]:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        yield client


def test_who_follows_is_told_and_the_server_has_nothing_to_complain_of(
    server: ServerProcess, client: torpor.Client
) -> None:
    for kind in ("code", "a command"):
        machine = client.new_machine()
        stream = (
            machine.stream("print('begun', flush=True); import time; time.sleep(100)", timeout_seconds=120)
            if kind == "code"
            else machine.commands.stream("echo begun; sleep 100")
        )
        event = next(iter(stream))
        assert isinstance(event, torpor.Stdout)
        machine.delete()
        with pytest.raises(torpor.MachineNotFound):
            stream.result()
    assert '"level": "error"' not in server.log
