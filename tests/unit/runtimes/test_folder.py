from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.errors import RuntimeMissing, RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.folder import current, exclusive, installed, publish, runtimes_dir, verify
from torpor_snapshotter.runtimes.lock import load_lock


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


def install(
    data_dir: Path, rootfs: str, version: str = "v1", runsc: str = "binary", *, replace: bool = False
) -> Runtime:
    with exclusive(data_dir, quiet) as work:
        (work / "runsc").write_text(runsc)
        (work / "rootfs").write_text(rootfs)
        return publish(data_dir, work / "runsc", work / "rootfs", version, None, replace=replace)


def die_while_building(data_dir: Path, leave_place: bool) -> None:
    with exclusive(data_dir, quiet) as work:
        (work / "runsc").write_text("half")
        if leave_place:
            (runtimes_dir(data_dir) / ".new-series").mkdir()
        os._exit(9)


def test_without_a_runtime_the_error_says_how_to_build_one(tmp_path: Path):
    assert installed(tmp_path) == []
    with pytest.raises(RuntimeMissing, match="torpor runtime build"):
        current(tmp_path)


def test_the_newest_runtime_is_current_unless_the_locked_one_is_there(tmp_path: Path):
    older, newer = install(tmp_path, "one"), install(tmp_path, "two")
    os.utime(older.runsc.parent / "runtime.json", ns=(1, 1))
    assert current(tmp_path) == newer

    locked = runtimes_dir(tmp_path) / load_lock().series
    older.runsc.parent.rename(locked)
    manifest = locked / "runtime.json"
    manifest.write_text(manifest.read_text().replace(older.series, load_lock().series))
    assert current(tmp_path).series == load_lock().series


def test_a_folder_without_its_description_is_not_used(tmp_path: Path):
    runtime = install(tmp_path, "one")
    (runtime.runsc.parent / "runtime.json").unlink()

    assert installed(tmp_path) == []
    assert install(tmp_path, "one") == runtime
    assert installed(tmp_path) == [runtime]


@pytest.mark.parametrize("leave_place", [False, True])
def test_what_a_killed_build_left_is_unused_and_removed_by_the_next(tmp_path: Path, leave_place: bool):
    builder = multiprocessing.get_context("spawn").Process(target=die_while_building, args=(tmp_path, leave_place))
    builder.start()
    builder.join(60)
    assert builder.exitcode == 9
    assert list(runtimes_dir(tmp_path).glob(".new-*"))
    assert installed(tmp_path) == []

    runtime = install(tmp_path, "one")

    assert installed(tmp_path) == [runtime]
    assert list(runtimes_dir(tmp_path).glob(".new-*")) == []


def test_a_rebuilt_binary_with_the_same_stamp_replaces_the_old_one_only_when_it_was_admitted(tmp_path: Path):
    old = install(tmp_path, "one", runsc="old")
    with pytest.raises(RuntimeProblem, match="torpor runtime admit"):
        install(tmp_path, "one", runsc="new")
    assert installed(tmp_path) == [old]

    rebuilt = install(tmp_path, "one", runsc="new", replace=True)

    assert installed(tmp_path) == [rebuilt]
    assert rebuilt.runsc.read_text() == "new"


def test_damage_to_an_installed_file_is_found(tmp_path: Path):
    runtime = install(tmp_path, "one")
    verify(runtime)
    runtime.rootfs.write_text("two")

    with pytest.raises(WrongDigest, match="damaged"):
        verify(runtime)
