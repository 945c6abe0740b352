from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from torpor_snapshotter.runtimes.build import take_current
from torpor_snapshotter.runtimes.download import fetch_packages
from torpor_snapshotter.runtimes.errors import NotOnMirror, RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.index import closure, parse_index, verified
from torpor_snapshotter.runtimes.lock import Package, load_lock

PACKAGES = """\
Package: app
Version: 2.0
Depends: libapp (= 2.0), awk | mawk, helper:any | other-helper, libc6 (>= 2.38)
Pre-Depends: base
Filename: pool/main/a/app/app_2.0_amd64.deb
SHA256: 11

Package: libapp
Version: 2.0
Depends: debconf (>= 0.5) | debconf-2.0
Filename: pool/main/a/app/libapp_2.0_amd64.deb
SHA256: 22

Package: mawk
Version: 1
Filename: m
SHA256: 33

Package: helper
Version: 1
Filename: h
SHA256: 44

Package: libc6
Version: 1
Filename: c
SHA256: 55

Package: base
Version: 1
Description: short
 long
Filename: b
SHA256: 66

Package: debconf
Version: 1
Filename: d
SHA256: 77
"""


def quiet(task: str, fraction: float | None = None) -> None:
    """Report to nobody."""


def test_an_index_is_read_and_its_needs_are_followed():
    index = parse_index(PACKAGES)

    assert index["app"].package == Package("app", "2.0", "pool/main/a/app/app_2.0_amd64.deb", "11")
    assert closure(index, ("app",), ("debconf",)) == ["app", "base", "helper", "libapp", "libc6", "mawk"]


def test_when_one_package_is_superseded_all_are_taken_as_the_suite_has_them_and_it_is_said():
    lock = load_lock()
    index = {package.name: package for package in (*lock.packages, *lock.tools)}
    newer = Package("bash", "99", "pool/main/b/bash/bash_99_amd64.deb", "0" * 64)

    current, notices = take_current(lock, {**index, "bash": newer}, "gone")

    assert newer in current.packages
    assert len(notices) == 1
    assert notices[0].endswith("is superseded on the mirror: took 99.")


def test_a_package_that_the_suite_lost_or_an_incomplete_mirror_is_an_error():
    lock = load_lock()
    index = {package.name: package for package in (*lock.packages, *lock.tools)}

    with pytest.raises(RuntimeProblem, match="incomplete"):
        take_current(lock, index, "gone")
    del index["bash"]
    with pytest.raises(RuntimeProblem, match="no bash at all"):
        take_current(lock, index, "gone")


def test_a_missing_file_is_told_from_a_wrong_one(tmp_path: Path):
    (tmp_path / "a.deb").write_bytes(b"content")
    mirror = tmp_path.as_uri()

    with pytest.raises(NotOnMirror):
        fetch_packages(mirror, (Package("b", "1", "b.deb", "0" * 64),), tmp_path / "downloads", quiet)
    with pytest.raises(WrongDigest, match="refused"):
        fetch_packages(mirror, (Package("a", "1", "a.deb", "0" * 64),), tmp_path / "downloads", quiet)
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.mark.skipif(shutil.which("gpgv") is None, reason="the host has no gpgv; without it an index is refused")
@pytest.mark.parametrize("release", [b"Origin: Debian\n", b"-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Debian\n"])
def test_an_unsigned_index_is_refused(release: bytes):
    with pytest.raises(RuntimeProblem, match="not signed by Debian"):
        verified(release)
