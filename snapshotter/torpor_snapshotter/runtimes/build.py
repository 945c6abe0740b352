"""Building a runtime from its lock."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.download import fetch, fetch_packages
from torpor_snapshotter.runtimes.errors import NotOnMirror, RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.folder import built_for, exclusive, file_sha256, installed, publish, runtimes_dir
from torpor_snapshotter.runtimes.index import read_index
from torpor_snapshotter.runtimes.lock import Package, RuntimeLock, load_lock
from torpor_snapshotter.runtimes.mirror import choose_mirror
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.rootfs import build_rootfs
from torpor_snapshotter.runtimes.runsc import build_runsc, stamped_version
from torpor_snapshotter.runtimes.wheels import fetch_wheels

_NEEDED_BYTES = 4 << 30
_DOWNLOADS = ".downloads"
"""Beside the runtimes; kept when a build is interrupted, so that the next one goes on from there."""


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What may differ between hosts."""

    runsc: Path | None = None
    """A sandbox binary to use instead of building one."""
    debian_mirror: str | None = None
    """The address of a mirror of Debian; None: the one in apt's configuration."""
    apt_dir: Path = Path("/etc/apt")


@dataclass(frozen=True, slots=True)
class Built:
    """A runtime, and what its builder should know about it."""

    runtime: Runtime
    is_new: bool
    notices: tuple[str, ...] = ()


def build(data_dir: Path, settings: BuildSettings, report: Report, lock: RuntimeLock | None = None) -> Built:
    """Build what `lock` (by default the checked-in one) says, unless it is installed, and install it.

    Interrupted at any point, it leaves nothing that is used. Raises `RuntimeProblem` with a sentence.
    """
    lock = lock or load_lock()
    with exclusive(data_dir, report) as work:
        have = installed(data_dir)
        wanted_runsc = file_sha256(settings.runsc) if settings.runsc else None
        for runtime in reversed(have):
            # Without a wish any binary will do: one that is not the locked one was admitted.
            fits = wanted_runsc in (None, runtime.runsc_sha256)
            if fits and lock.series in (runtime.series, built_for(runtime)):
                return Built(runtime, is_new=False)
        free_bytes = shutil.disk_usage(work).free
        if free_bytes < _NEEDED_BYTES:
            raise RuntimeProblem(
                f"{data_dir} has {free_bytes >> 20} MiB free; a build needs {_NEEDED_BYTES >> 20} MiB."
            )
        files = _build_both(lock, settings, have, work, report)
        runtime = publish(
            data_dir, files.runsc, files.rootfs, files.runsc_version, lock.series if lock.rootfs_sha256 else None
        )
        shutil.rmtree(runtimes_dir(data_dir) / _DOWNLOADS, ignore_errors=True)
    return Built(runtime, is_new=True, notices=files.notices)


@dataclass(frozen=True, slots=True)
class _Files:
    runsc: Path
    runsc_version: str
    rootfs: Path
    notices: tuple[str, ...]


def _build_both(lock: RuntimeLock, settings: BuildSettings, have: list[Runtime], work: Path, report: Report) -> _Files:
    stop = threading.Event()

    def report_or_stop(task: str, fraction: float | None = None) -> None:
        if stop.is_set():
            raise RuntimeProblem(f"{task}: stopped.")
        report(task, fraction)

    with ThreadPoolExecutor(2) as pool:
        binary = pool.submit(_runsc, lock, settings, have, work, stop, report_or_stop)
        rootfs = pool.submit(_rootfs, lock, settings, have, work, report_or_stop)
        jobs: list[Future[Any]] = [binary, rootfs]
        try:
            finished = wait(jobs, return_when=FIRST_EXCEPTION).done
        finally:
            stop.set()
        for job in finished:  # those that nobody stopped: the cause of a failure is among them
            job.result()
    return _Files(*binary.result(), *rootfs.result())


def _runsc(
    lock: RuntimeLock, settings: BuildSettings, have: list[Runtime], work: Path, stop: threading.Event, report: Report
) -> tuple[Path, str]:
    if settings.runsc is not None:
        copy = Path(shutil.copy(settings.runsc, work / "runsc"))
        copy.chmod(0o755)
        return copy, stamped_version(copy)
    for runtime in have:
        if runtime.runsc_sha256 == lock.runsc_sha256:
            return _linked(runtime.runsc, work / "runsc"), lock.runsc_version
    binary = build_runsc(lock, work, stop, report)
    if lock.runsc_sha256 and file_sha256(binary) != lock.runsc_sha256:
        raise WrongDigest(
            f"The sandbox binary built here has the SHA-256 {file_sha256(binary)}, not the locked one "
            f"{lock.runsc_sha256}: refused. Build it with {lock.go_version}, or name a binary in TORPOR_RUNSC."
        )
    return binary, lock.runsc_version


def _rootfs(
    lock: RuntimeLock, settings: BuildSettings, have: list[Runtime], work: Path, report: Report
) -> tuple[Path, tuple[str, ...]]:
    for runtime in have:
        if runtime.rootfs_sha256 == lock.rootfs_sha256:
            return _linked(runtime.rootfs, work / "rootfs.erofs"), ()
    mirror = choose_mirror(settings.apt_dir, settings.debian_mirror, lock.suite, fetch)
    downloads = work.parent / _DOWNLOADS
    notices: tuple[str, ...] = ()
    try:
        debs = fetch_packages(mirror, lock.packages + lock.tools, downloads, report)
    except NotOnMirror as gone:
        index = {name: entry.package for name, entry in read_index(mirror, lock.suite).items()}
        lock, notices = take_current(lock, index, str(gone))
        debs = fetch_packages(mirror, lock.packages + lock.tools, downloads, report)
    wheels = fetch_wheels(lock.wheels, downloads / "wheels", report)
    count = len(lock.packages)
    image = build_rootfs(debs[:count], debs[count:], wheels, work, report)
    digest = file_sha256(image)
    if notices:
        return image, (
            *notices,
            f"The root file system's digest {digest} differs from the lock's {lock.rootfs_sha256}.",
        )
    if lock.rootfs_sha256 and digest != lock.rootfs_sha256:
        raise WrongDigest(
            f"The root file system built here has the SHA-256 {digest}, not the locked one {lock.rootfs_sha256}: "
            "refused. Take one from another host with `torpor runtime import`."
        )
    return image, ()


def take_current(lock: RuntimeLock, index: dict[str, Package], reason: str) -> tuple[RuntimeLock, tuple[str, ...]]:
    """The lock with all packages as the suite has them now, and a notice for each that changed.

    All and not only the missing ones, since packages of one source fit only each other. Raises `RuntimeProblem` if the
    suite has no package of a name any more.
    """
    missing = [package.name for package in lock.packages + lock.tools if package.name not in index]
    if missing:
        raise RuntimeProblem(f"{reason} The suite {lock.suite} has no {', '.join(missing)} at all: update the lock.")
    current = replace(
        lock,
        packages=tuple(index[package.name] for package in lock.packages),
        tools=tuple(index[package.name] for package in lock.tools),
    )
    notices = tuple(
        f"{old.name} {old.version} is superseded on the mirror: took {new.version}."
        for old, new in zip(lock.packages + lock.tools, current.packages + current.tools, strict=True)
        if old != new
    )
    if not notices:
        raise RuntimeProblem(f"{reason} Its index still names it: the mirror is incomplete, try again or set another.")
    return current, notices


def _linked(source: Path, place: Path) -> Path:
    os.link(source, place)
    return place
