"""A machine that is used for ever costs what one costs that was used a hundred times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench.connection import Connection
from tests.support.server import ServerProcess
from tests.support.steady import Steady

INSTRUCTIONS = int(os.environ.get("TORPOR_STEADY_INSTRUCTIONS", "20000"))
SECONDS_EACH = 0.06
"""A generous limit, ten times what it takes on an idle host."""
FIRST = 100
REPORTS = 10
LIMIT_BYTES = 2 * 1024 * 1024

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300 + INSTRUCTIONS * SECONDS_EACH)]


def test_memory_after_many_instructions_is_what_it_was_after_the_first_hundred(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, Connection(server.url, server.api_key) as connection:
        steady = Steady(server, connection)
        for _ in range(REPORTS):  # each with a save, so that all that happens later has happened before
            steady.run(FIRST // REPORTS)
            first = steady.memory()
        grown: dict[str, int] = {}
        for _ in range(REPORTS):
            steady.run((INSTRUCTIONS - FIRST) // REPORTS)
            grown = {name: held - first[name] for name, held in steady.memory().items()}
            print(steady.executed, {name: f"{growth / 1e6:+.2f} MB" for name, growth in grown.items()}, flush=True)
    too_much = {name: growth for name, growth in grown.items() if growth > LIMIT_BYTES}
    assert not too_much, f"grown over the first {FIRST} instructions: {grown}"
