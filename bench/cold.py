"""Wakes from an S3 server with nothing on the local disk, against wakes of the same machines from their images."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from tests.support.s3_server import BUCKET, s3_server
from tests.support.server import ServerProcess

from bench.connection import Connection
from bench.floor import Floor
from bench.measurement import Measurement, seconds_of
from bench.settling import wait_until_settled
from bench.waking import Place
from torpor_snapshotter.runtimes import current


def measure_cold_waking(folder: Path, machines: int) -> list[Measurement]:
    """The first wakes of a server whose images are gone, and of one whose templates are gone too.

    Each machine is woken once, and then once more from the image that its sleep has left.
    """
    folder.mkdir()
    with s3_server() as bucket:
        os.environ.update(bucket.environment())
        server = ServerProcess(folder, store_url=f"s3://{BUCKET}/bench", quiet_save_seconds=3600)
        with server:
            with Connection(server.url, server.api_key) as connection:
                place = Place(server, connection, Floor(current(server.data_dir), folder / "floor"))
                wait_until_settled(server.data_dir, "python")
                place.new_machine("data")
                wait_until_settled(server.data_dir, "python", "data")
                names = [place.new_machine("data", "import pandas; a = 3") for _ in range(2 * machines)]
                for name in names:
                    place.sleep(name)
            return [
                _measure(server, folder, "no image on the disk", ["images", "cache"], names[:machines]),
                _measure(server, folder, "nor templates", ["images", "cache", "templates"], names[machines:]),
            ]


def _measure(server: ServerProcess, folder: Path, what: str, emptied: list[str], names: list[str]) -> Measurement:
    server.stop()
    for name in emptied:
        shutil.rmtree(server.data_dir / name)
    server.start()
    with Connection(server.url, server.api_key) as connection:
        place = Place(server, connection, Floor(current(server.data_dir), folder / "floor"))
        wait_until_settled(server.data_dir, "python")
        cold, local = [], []
        for name in names:
            place.wait_for("spare")
            cold.append(seconds_of(partial(place.run, name, "a + 5")))
            place.sleep(name)
            place.wait_for("spare")
            local.append(seconds_of(partial(place.run, name, "a + 5")))
            place.sleep(name)
    return Measurement(f"cold wake of a data machine: {what}", "its wake from the local image", cold, local, 2.0)
