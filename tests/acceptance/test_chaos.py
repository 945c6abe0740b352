"""Random work and random deaths, by a fixed seed; for longer, `scripts/chaos --minutes 30 --seed 7`."""

from pathlib import Path

import pytest
from tests.support.chaos import ANSWER_SECONDS, Chaos
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

SECONDS = 60


def test_whatever_dies_no_answer_is_lost_and_nothing_takes_effect_twice(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path, idle_seconds=3, quiet_save_seconds=0.5) as server,
        server.client(ANSWER_SECONDS) as http,
    ):
        chaos = Chaos(server, http, seed=1)
        chaos.run(SECONDS)
        assert chaos.problems == []
        assert chaos.done["count"] > 0, chaos.done
        assert server.running
