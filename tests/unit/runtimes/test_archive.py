from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.archive import export_runtime, import_runtime
from torpor_snapshotter.runtimes.errors import RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.folder import exclusive, installed, publish


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    data_dir = tmp_path / "here"
    with exclusive(data_dir, quiet) as work:
        (work / "runsc").write_text("binary")
        (work / "rootfs").write_text("tree")
        return publish(data_dir, work / "runsc", work / "rootfs", "v1", None)


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members_of(runtime: Runtime) -> dict[str, bytes]:
    folder = runtime.runsc.parent
    return {name: (folder / name).read_bytes() for name in ("runtime.json", "runsc", "rootfs.erofs")}


def test_an_exported_runtime_is_the_same_after_import(runtime: Runtime, tmp_path: Path):
    export_runtime(runtime, tmp_path / "runtime.tar", quiet)

    imported = import_runtime(tmp_path / "there", tmp_path / "runtime.tar", quiet)

    assert imported.series == runtime.series
    assert members_of(imported) == members_of(runtime)
    assert imported.runsc.stat().st_mode & 0o777 == 0o755
    assert import_runtime(tmp_path / "there", tmp_path / "runtime.tar", quiet) == imported


@pytest.mark.parametrize("name", ["runsc", "rootfs.erofs"])
def test_an_archive_with_a_wrong_digest_is_refused(runtime: Runtime, tmp_path: Path, name: str):
    archive = write_archive(tmp_path / "bad.tar", {**members_of(runtime), name: b"something else"})

    with pytest.raises(WrongDigest, match="refused"):
        import_runtime(tmp_path / "there", archive, quiet)

    assert installed(tmp_path / "there") == []


def test_an_archive_cannot_choose_where_files_go(runtime: Runtime, tmp_path: Path):
    members = members_of(runtime)
    renamed = {"runtime.json": members["runtime.json"], "../../runsc": b"x", "rootfs.erofs": b"y"}
    facts = {**json.loads(members["runtime.json"]), "runsc_version": "../../v1"}
    misnamed = {**members, "runtime.json": json.dumps(facts).encode()}

    for bad in (renamed, misnamed):
        with pytest.raises(RuntimeProblem, match="not a runtime made by"):
            import_runtime(tmp_path / "deep" / "there", write_archive(tmp_path / "bad.tar", bad), quiet)

    assert list(tmp_path.glob("**/*v1*")) == [runtime.runsc.parent]
    assert installed(tmp_path / "deep" / "there") == []


@pytest.mark.parametrize("content", [b"", b"not a tar file", b"\0" * 2048])
def test_a_file_that_is_no_archive_is_refused_with_a_sentence(tmp_path: Path, content: bytes):
    (tmp_path / "bad.tar").write_bytes(content)

    with pytest.raises(RuntimeProblem, match="not a runtime made by"):
        import_runtime(tmp_path / "there", tmp_path / "bad.tar", quiet)


def test_an_archive_cut_short_is_refused(runtime: Runtime, tmp_path: Path):
    export_runtime(runtime, tmp_path / "runtime.tar", quiet)
    whole = (tmp_path / "runtime.tar").read_bytes()
    (tmp_path / "runtime.tar").write_bytes(whole[:2050])

    with pytest.raises(RuntimeProblem):
        import_runtime(tmp_path / "there", tmp_path / "runtime.tar", quiet)
    assert installed(tmp_path / "there") == []
