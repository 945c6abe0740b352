"""Limits by cgroup, on folder trees like those of a version 1 and a version 2 host."""

import subprocess
from pathlib import Path

import pytest

from torpor_worker.gvisor.cgroups import Cgroups, limit_files
from torpor_worker.sandbox import Limits

LIMITS = Limits(memory_bytes=1024**3, processes=256, cpu_shares=0.5)


def version_1(mount: Path) -> Path:
    for controller in ("memory", "pids", "cpu", "freezer"):
        (mount / controller).mkdir()
        (mount / controller / "cgroup.procs").touch()
    return mount


def version_2(mount: Path) -> Path:
    (mount / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma misc\n")
    (mount / "cgroup.subtree_control").touch()
    return mount


def enter(cgroups: Cgroups, sandbox: str) -> str:
    """Start a command in the sandbox's cgroups; what it wrote into their lists of processes: its id."""
    prefix = cgroups.make(sandbox, LIMITS)
    done = subprocess.run([*prefix, "sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    return done.stdout


def written(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_version_1_sets_each_controllers_limits_and_starts_the_command_in_them(tmp_path):
    cgroups = Cgroups.find(Path("/data/sandboxes"), version_1(tmp_path))
    assert cgroups is not None
    entering = enter(cgroups, "abc")
    limits = limit_files(LIMITS, 1)
    assert limits["cpu"] == {"cpu.shares": "512"}
    for controller, parent in cgroups.parents.items():
        assert parent.parent == tmp_path / controller
        assert written(parent / "abc") == {**limits[controller], "cgroup.procs": entering}


def test_version_2_delegates_and_sets_every_limit_in_one_folder(tmp_path):
    cgroups = Cgroups.find(Path("/data/sandboxes"), version_2(tmp_path))
    assert cgroups is not None
    entering = enter(cgroups, "abc")
    (parent,) = set(cgroups.parents.values())
    for folder in (tmp_path, parent):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert written(parent / "abc") == {
        "memory.max": str(2 * 1024**3 + 512 * 1024**2),
        "memory.oom.group": "1",
        "pids.max": "4096",
        "cpu.weight": "50",
        "cgroup.procs": entering,
    }


@pytest.mark.parametrize("kind", ["none", "version 1 read-only", "version 2 read-only"])
def test_a_host_without_writable_cgroups_does_without(tmp_path, kind):
    if kind == "version 1 read-only":
        (version_1(tmp_path) / "memory/cgroup.procs").unlink()
        for controller in ("pids", "cpu"):
            (tmp_path / controller / "cgroup.procs").unlink()
    elif kind == "version 2 read-only":
        # A folder in the place of the file refuses to be written, whoever asks.
        control = version_2(tmp_path) / "cgroup.subtree_control"
        control.unlink()
        control.mkdir()
    assert Cgroups.find(Path("/data/sandboxes"), tmp_path) is None


def test_two_data_folders_have_cgroups_of_their_own(tmp_path):
    first, second = (Cgroups.find(Path(folder), version_1_once(tmp_path)) for folder in ("/one", "/two"))
    assert first is not None
    assert second is not None
    assert not set(first.parents.values()) & set(second.parents.values())


def version_1_once(mount: Path) -> Path:
    return mount if (mount / "memory").exists() else version_1(mount)
