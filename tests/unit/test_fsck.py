"""`torpor fsck` on a real folder: what is missing, damaged, locked and unreachable is named, and nothing changes."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.ledger import ACCOUNT, awake, new_machine, open_ledger
from typer.testing import CliRunner, Result

from torpor_api.commands.fsck import app
from torpor_api.data_folder import data_folder
from torpor_api.ledger.database import FILE_NAME
from torpor_snapshotter.archive import Archive, ParentKey, StoredImage
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.key import pack_key
from torpor_snapshotter.keys import FolderKeyStore
from torpor_snapshotter.owner import claim
from torpor_snapshotter.runtimes.description import Description
from torpor_snapshotter.runtimes.folder import exclusive, publish
from torpor_snapshotter.runtimes.keeping import keep
from torpor_worker.ledger import KeptRuntime, Snapshot


@dataclass(frozen=True)
class Saved:
    """A data folder with one machine and three generations, the later ones on top of the first."""

    folder: Path
    machine: str
    images: list[StoredImage]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def check(self, *arguments: str) -> Result:
        database = f"sqlite:///{self.folder / FILE_NAME}"
        return CliRunner().invoke(
            app, ["--data-dir", str(self.folder), "--database-url", database, *arguments], env={"COLUMNS": "200"}
        )

    def problems(self, *arguments: str) -> dict[str, tuple[str, list[int]]]:
        """Of each object with a problem: what, and which generations of the machine need it."""
        result = self.check("--json", *arguments)
        answer: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == (0 if answer["ok"] else 1)
        for problem in answer["problems"]:
            assert problem["object"] in problem["reason"] or problem["state"] == "locked"
            assert {one["machine"] for one in problem["snapshots"]} == {self.machine}
        return {
            problem["object"]: (problem["state"], [one["generation"] for one in problem["snapshots"]])
            for problem in answer["problems"]
        }

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.store.rglob("*") if path.is_file()}


async def _save(folder: Path) -> Saved:
    ledger = await open_ledger(folder)
    hold = await awake(ledger, await new_machine(ledger))
    store = FolderStore(folder / "store")
    await claim(store, await ledger.identity(), has_objects=False)
    archive = Archive(store, FolderKeyStore(folder / "keys"))
    image = folder / "image"
    image.mkdir()
    pages = os.urandom(200 * 4096)
    stored: list[StoredImage] = []
    for number in range(3):
        (image / "pages.img").write_bytes(pages + os.urandom(3 * 4096))
        (image / "checkpoint.img").write_bytes(os.urandom(100))
        generation, key = await ledger.allot_save(hold)
        parent = ParentKey(stored[-1].key, stored[-1].sha256, None) if stored else None
        one = await archive.store(image, key, {"machine": hold.machine, "generation": generation}, parent)
        snapshot = Snapshot(
            generation,
            0,
            None,
            0,
            None,
            0.0,
            0,
            key,
            one.sha256,
            one.stored_bytes,
            one.image_bytes,
            "s",
            packs=one.packs,
        )
        await ledger.commit_snapshot(hold, number - 1 if number else None, snapshot)
        stored.append(one)
    await archive.close()
    await ledger.close()
    return Saved(folder, hold.machine, stored)


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    return asyncio.run(_save(tmp_path))


def flip_a_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_store_that_has_everything_is_well(saved: Saved) -> None:
    before = saved.files()
    result = saved.check()

    assert result.exit_code == 0
    assert "All is well: 3 manifests and 3 packs are whole." in result.stdout
    assert saved.check("--quick").exit_code == 0
    assert saved.files() == before


def test_what_is_missing_damaged_and_unreachable_is_named_with_who_needs_it(saved: Saved) -> None:
    first, second, third = saved.images
    flip_a_byte(saved.store / pack_key(first.key), 5)
    (saved.store / pack_key(second.key)).unlink()
    (saved.store / third.key).unlink()
    (saved.store / "machines" / "stray").write_bytes(b"nobody's")
    before = saved.files()

    assert saved.problems() == {
        pack_key(first.key): ("damaged", [0, 1, 2]),
        pack_key(second.key): ("missing", [1]),
        third.key: ("missing", [2]),
    }
    assert json.loads(saved.check("--json").stdout)["unreachable"] == ["machines/stray"]
    told = saved.check()
    assert told.exit_code == 1
    assert f"machine {saved.machine}: 0-2" in told.stdout
    assert "unreachable machines/stray" in told.stdout
    assert "3 of 3 manifests and 3 packs cannot be used." in told.stdout
    assert saved.files() == before


def test_a_quick_check_reads_manifests_and_does_not_open_packs(saved: Saved) -> None:
    flip_a_byte(saved.store / pack_key(saved.images[0].key), 5)
    assert saved.problems("--quick") == {}
    flip_a_byte(saved.store / saved.images[1].key, -1)
    assert saved.problems("--quick") == {saved.images[1].key: ("damaged", [1])}


@pytest.mark.parametrize("change", [lambda pack: pack[:-1], lambda pack: pack + b"\0", lambda pack: b""])
def test_a_pack_of_another_size_is_damaged(saved: Saved, change: Any) -> None:
    path = saved.store / pack_key(saved.images[2].key)
    path.write_bytes(change(path.read_bytes()))

    assert saved.problems() == {pack_key(saved.images[2].key): ("damaged", [2])}


def test_snapshots_whose_key_is_gone_are_locked(saved: Saved) -> None:
    FolderKeyStore(saved.folder / "keys").destroy(saved.machine)

    assert saved.problems() == {one.key: ("locked", [number]) for number, one in enumerate(saved.images)}


def test_objects_that_are_about_to_be_deleted_are_no_problem(saved: Saved) -> None:
    async def delete() -> None:
        ledger = await open_ledger(saved.folder)
        await ledger.delete_machine(ACCOUNT, saved.machine)
        await ledger.close()

    asyncio.run(delete())
    answer = json.loads(saved.check("--json").stdout)

    assert (answer["ok"], answer["manifests"], answer["unreachable"], answer["condemned"]) == (True, 0, [], 6)


def test_beside_a_running_server_nothing_is_checked(saved: Saved) -> None:
    with data_folder(saved.folder):
        result = saved.check()

    assert result.exit_code == 3
    assert "Another server uses the data folder" in result.stderr


def test_another_servers_store_a_folder_without_a_database_and_none_at_all_are_refused(saved: Saved) -> None:
    (saved.store / "torpor-owner").write_bytes(b"somebody else")
    assert "another server's" in saved.check().stderr
    for folder, told in ((saved.store, "no database"), (saved.folder / "none", "no data folder")):
        result = CliRunner().invoke(app, ["--data-dir", str(folder)])
        assert result.exit_code == 3
        assert told in result.stderr
    assert not (saved.folder / "none").exists()


def test_a_runtime_of_which_parts_are_missing_or_damaged_is_named(saved: Saved, tmp_path: Path) -> None:
    async def keep_runtime() -> Description:
        data_dir = tmp_path / "runtimes-of-a-host"
        with exclusive(data_dir, lambda _task, _fraction=None: None) as work:
            (work / "runsc").write_bytes(b"binary")
            (work / "rootfs").write_bytes(b"tree")
            runtime = publish(data_dir, work / "runsc", work / "rootfs", "v1", None)
        described = Description.of(runtime)
        ledger = await open_ledger(saved.folder)
        await ledger.register_runtime(runtime, newest=True)
        await ledger.allot_runtime(runtime.series, described.keys)
        await keep(FolderStore(saved.store), runtime, described, lambda: asyncio.sleep(0))
        await ledger.commit_runtime(runtime.series, runtime.runsc_sha256, KeptRuntime(described.key, described.sha256))
        await ledger.close()
        return described

    described = asyncio.run(keep_runtime())
    assert "3 manifests, 3 packs and 1 runtime are whole" in saved.check().stdout

    binary, tree = (file.parts[0].key for _, file in described.files)
    (saved.store / binary).unlink()
    flip_a_byte(saved.store / tree, -1)
    told = saved.check()
    assert told.exit_code == 1
    assert f"runtime {described.series}" in told.stdout
    problems = json.loads(saved.check("--json").stdout)["problems"]
    assert {problem["object"]: problem["state"] for problem in problems} == {binary: "missing", tree: "damaged"}
    assert all(problem["runtimes"] == [described.series] for problem in problems)
