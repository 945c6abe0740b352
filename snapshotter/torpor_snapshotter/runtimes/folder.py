"""The folder `<data>/runtimes`: one sub-folder per runtime, complete or not used at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.errors import RuntimeMissing, RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.lock import load_lock
from torpor_snapshotter.runtimes.progress import Report

HALF_MADE_PREFIX = ".new-"


def series_name(runsc_version: str, rootfs_sha256: str) -> str:
    """The series of a binary with this version stamp and a root file system with this digest."""
    return f"{runsc_version}-{rootfs_sha256[:12]}"


def runtimes_dir(data_dir: Path) -> Path:
    """The folder of all runtimes in a data folder."""
    return data_dir / "runtimes"


def installed(data_dir: Path) -> list[Runtime]:
    """Every complete runtime, the newest last. Folders without `runtime.json` are half-made and left out."""
    found = []
    for manifest in runtimes_dir(data_dir).glob("[!.]*/runtime.json"):
        runtime = read_runtime(manifest.parent)
        found.append((manifest.stat().st_mtime_ns, runtime.series, runtime))
    return [runtime for _, _, runtime in sorted(found, key=lambda entry: entry[:2])]


def read_runtime(folder: Path) -> Runtime:
    """The complete runtime in a folder, as its description says."""
    facts = json.loads((folder / "runtime.json").read_text())
    return Runtime(
        series=facts["series"],
        runsc=folder / "runsc",
        runsc_version=facts["runsc_version"],
        runsc_sha256=facts["runsc_sha256"],
        rootfs=folder / "rootfs.erofs",
        rootfs_sha256=facts["rootfs_sha256"],
    )


def current(data_dir: Path, without: Collection[str] = ()) -> Runtime:
    """The runtime for new machines: the locked one, else the newest. Raises `RuntimeMissing`.

    Those that `without` names are used only if there is no other.
    """
    have = installed(data_dir)
    if not have:
        raise RuntimeMissing(f"There is no runtime in {runtimes_dir(data_dir)}. Run `torpor runtime build`.")
    runtimes = [runtime for runtime in have if runtime.series not in without] or have
    locked = load_lock().series
    return next((runtime for runtime in runtimes if runtime.series == locked), runtimes[-1])


def verify(runtime: Runtime) -> None:
    """Read both files and compare. Raises `WrongDigest` if one is not what `runtime.json` says."""
    for path, expected in ((runtime.runsc, runtime.runsc_sha256), (runtime.rootfs, runtime.rootfs_sha256)):
        if file_sha256(path) != expected:
            raise WrongDigest(
                f"{path} is damaged: its SHA-256 is not {expected}. Delete its folder and build it again."
            )


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(data_dir: Path, report: Report) -> Iterator[Path]:
    """Hold the right to add runtimes; yields an empty folder `.new-*` for one. Waits for another holder.

    What an interrupted build left is removed first, and the yielded folder at the end, unless it was published.
    """
    folder = runtimes_dir(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            task = "Waiting for another build to end"
            report(task)
            fcntl.flock(lock_file, fcntl.LOCK_EX)
            report(task, 1)
        for leftover in folder.glob(f"{HALF_MADE_PREFIX}*"):
            _remove(leftover)
        new = folder / f"{HALF_MADE_PREFIX}{os.getpid()}"
        new.mkdir()
        try:
            yield new
        finally:
            _remove(new)


def built_for(runtime: Runtime) -> str:
    """The series of the lock that it was built from; not its own where the mirror had dropped a locked package."""
    facts = json.loads((runtime.runsc.parent / "runtime.json").read_text())
    return str(facts.get("built_for", runtime.series))


def publish(
    data_dir: Path,
    runsc: Path,
    rootfs: Path,
    runsc_version: str,
    locked_series: str | None,
    *,
    replace: bool = False,
) -> Runtime:
    """Move two finished files on the data folder's file system into their place, for good.

    Call it while holding `exclusive`. Until its last step, a rename, nobody sees the runtime. One of the same series
    with another binary (a rebuild with the same stamp) is replaced if `replace`, else `RuntimeProblem` is raised: it
    is to be admitted.
    """
    rootfs_sha256, runsc_sha256 = file_sha256(rootfs), file_sha256(runsc)
    series = series_name(runsc_version, rootfs_sha256)
    for runtime in installed(data_dir):
        if runtime.series == series and runtime.runsc_sha256 == runsc_sha256:
            return runtime
        if runtime.series == series and not replace:
            raise RuntimeProblem(
                f"Runtime {series} is installed with another sandbox binary. Snapshots depend on it: see whether they "
                "wake on this one with `torpor runtime admit`."
            )
    facts = {
        "series": series,
        "runsc_version": runsc_version,
        "runsc_sha256": runsc_sha256,
        "rootfs_sha256": rootfs_sha256,
        "built_for": locked_series or series,
    }
    folder = runtimes_dir(data_dir)
    half_made = folder / f"{HALF_MADE_PREFIX}{series}"
    half_made.mkdir()
    half_made.chmod(0o755)
    for source, name, mode in ((runsc, "runsc", 0o755), (rootfs, "rootfs.erofs", 0o644)):
        source.chmod(mode)
        _sync(source)
        source.rename(half_made / name)
    manifest = half_made / "runtime.json"
    manifest.write_text(json.dumps(facts, indent=2) + "\n")
    manifest.chmod(0o644)
    _sync(manifest)
    _sync(half_made)
    place, replaced = folder / series, folder / f"{HALF_MADE_PREFIX}replaced"
    if place.exists():
        place.rename(replaced)
    half_made.rename(place)
    _sync(folder)
    _remove(replaced)
    return next(runtime for runtime in installed(data_dir) if runtime.series == series)


def remove(runtime: Runtime) -> None:
    """Remove an installed runtime. Call it while holding `exclusive`."""
    half_removed = runtime.rootfs.parent.with_name(f"{HALF_MADE_PREFIX}removed")
    runtime.rootfs.parent.rename(half_removed)
    _sync(half_removed.parent)
    _remove(half_removed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
