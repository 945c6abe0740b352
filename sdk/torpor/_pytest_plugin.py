"""Fixtures for tests of programs that use machines, which pytest finds by itself where `torpor` is installed.

    def test_an_answer_is_kept(torpor_machine):
        torpor_machine.run("a = 3")
        assert torpor_machine.run("a + 5").value == "8"

Where `TORPOR_URL` is set that server is used, else one of the session's own (`torpor.local`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ._client import Client
    from ._machine import Machine


@pytest.fixture(scope="session")
def torpor_client() -> Iterator[Client]:
    """A client of a server that lives as long as the session."""
    from ._client import Client  # noqa: PLC0415 - a session that does not use it pays nothing for it
    from ._local import local  # noqa: PLC0415

    with Client() if os.environ.get("TORPOR_URL") else local() as client:
        yield client


@pytest.fixture
def torpor_machine(torpor_client: Client) -> Iterator[Machine]:
    """A new machine, which is deleted after the test."""
    from ._errors import MachineNotFound  # noqa: PLC0415

    machine = torpor_client.new_machine()
    yield machine
    with contextlib.suppress(MachineNotFound):  # the test has deleted it
        machine.delete()
