"""Fixtures of the acceptance tier."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running `torpor serve` of the test's own."""
    with ServerProcess(tmp_path) as process:
        yield process
