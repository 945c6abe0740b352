"""A fork → its first result over HTTP against one restore with plain `runsc`."""

from __future__ import annotations

import shutil

from bench.measurement import Measurement, seconds_of
from bench.waking import RESTORED, Place


def measure_forks(place: Place, rounds: int) -> list[Measurement]:
    """Forks of sleeping machines, for two sizes."""
    return [_measure(place, what, template, rounds) for what, template in (("bare", "python"), ("data", "data"))]


def _measure(place: Place, what: str, template: str, rounds: int) -> Measurement:
    machine = place.new_machine(template)
    place.sleep(machine)
    image = place.data_dir.parent / f"floor-{machine}"
    shutil.copytree(place.image(machine), image)
    forks: list[str] = []

    def fork_and_run() -> None:
        forks.extend(place.connection.post(f"/v1/machine/{machine}/fork")["machines"])
        place.run(forks[-1])

    torpor, floor = [], []
    for _ in range(1 + rounds):
        place.wait_for("spare")
        torpor.append(seconds_of(fork_and_run))
        place.connection.delete(f"/v1/machine/{forks[-1]}")
        place.wait_for("spare")
        floor.append(place.floor.restore_seconds(image))
    shutil.rmtree(image)
    place.connection.delete(f"/v1/machine/{machine}")
    return Measurement(f"fork and run `1 + 1`: {what}", RESTORED, torpor[1:], floor[1:], 1.2)
