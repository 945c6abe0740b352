"""Bringing the lock up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torpor_snapshotter.runtimes.build import BuildSettings, Built, build
from torpor_snapshotter.runtimes.download import fetch
from torpor_snapshotter.runtimes.index import closure, read_index
from torpor_snapshotter.runtimes.lock import LOCK_FILE, format_lock, load_lock
from torpor_snapshotter.runtimes.mirror import choose_mirror
from torpor_snapshotter.runtimes.progress import Report
from torpor_snapshotter.runtimes.wheels import resolve_wheels


def update_lock(data_dir: Path, settings: BuildSettings, report: Report, lock_file: Path = LOCK_FILE) -> Built:
    """Lock the newest packages and wheels, build and install that runtime, and write the lock with its digests.

    The Go module's pins are changed by hand (`go get -tool`), together with `runsc_version`: a new stamp means that
    older snapshots need the older runtime.
    """
    lock = load_lock(lock_file)
    task = "Reading the newest versions"
    report(task)
    index = read_index(choose_mirror(settings.apt_dir, settings.debian_mirror, lock.suite, fetch), lock.suite)
    packages = closure(index, lock.wanted_packages, lock.without_packages)
    tools = closure(index, lock.wanted_tools, lock.without_packages)
    fresh = replace(
        lock,
        runsc_sha256="",
        rootfs_sha256="",
        packages=tuple(index[name].package for name in packages),
        tools=tuple(index[name].package for name in tools if name not in packages),
        wheels=resolve_wheels(lock.requirements),
    )
    report(task, 1)
    built = build(data_dir, replace(settings, runsc=None), report, fresh)
    runtime = built.runtime
    fresh = replace(fresh, runsc_sha256=runtime.runsc_sha256, rootfs_sha256=runtime.rootfs_sha256)
    lock_file.write_text(format_lock(fresh))
    return built
