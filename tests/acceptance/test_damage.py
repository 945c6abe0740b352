"""Objects and images that rot: a machine goes on from the next best and says so, and `torpor fsck` names them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import stranger
from tests.support.server import ServerProcess

import torpor

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


def value(machine: torpor.Machine, code: str) -> str | None:
    return machine.run(code, timeout_seconds=120).raise_for_error().value


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def test_what_rots_on_the_disk_or_in_the_store_gives_way_to_the_next_best(server: ServerProcess) -> None:
    with torpor.Client(url=server.url, api_key=server.api_key) as client:
        machine = client.new_machine()
        value(machine, "a = 3")
        machine.sync()
        value(machine, "b = a + 5")
        machine.sleep()
        head = machine.snapshots()[0].generation
        [manifest] = (server.data_dir / "store" / "machines" / machine.name).glob(f"{head:08}-*[!k]")
        read = stranger.Snapshot(
            server.data_dir / "store", server.data_dir / "keys", f"machines/{machine.name}/{manifest.name}"
        )
        local = server.data_dir / "images" / machine.name / str(head) / "image"
        assert read.files() == {path.name: path.read_bytes() for path in local.iterdir()}
        for image in (server.data_dir / "images" / machine.name).glob("*/image"):
            (image / "checkpoint.img").write_bytes(b"rotten" * (1 << 10))
        told = machine.run("a, b", timeout_seconds=120)
        assert (told.value, told.notices) == ("(3, 8)", ())

        value(machine, "c = b + 1")
        machine.sleep()
        newest = machine.snapshots()[0].generation
        assert newest > head
        server.stop()
        [pack] = (server.data_dir / "store" / "machines" / machine.name).glob(f"{newest:08}-*.pack")
        damage(pack)
        shutil.rmtree(server.data_dir / "images")
        checked = subprocess.run(
            [str(Path(sys.executable).with_name("torpor")), "fsck"],
            env=server.environment() | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert checked.returncode == 1
        assert f"machine {machine.name}: {newest}" in checked.stdout
        server.start()

        told = machine.run("a, b, c", timeout_seconds=120)
        assert told.value == "(3, 8, 9)"
        assert {"set_aside", "replayed"} <= {notice.code for notice in told.notices}
        machine.sleep()
        assert value(machine, "c") == "9"
