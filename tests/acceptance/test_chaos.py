"""Random work and random deaths, by a fixed seed; for longer, `scripts/chaos`."""

import pytest
from tests.support.chaos_rounds import play

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

SECONDS = 50


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1, id="a folder, and sandboxes that outlive their server"),
        pytest.param(2, id="a bucket that misbehaves, and sandboxes that do not"),
    ],
)
def test_whatever_dies_no_answer_is_lost_and_nothing_takes_effect_twice(seed: int) -> None:
    done, problems = play(seed, SECONDS)
    assert problems == []
    assert done["compared"] > 0, done
