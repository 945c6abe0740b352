"""Handing a runtime over to another host: one tar file with its digests."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import IO

from torpor_snapshotter.runtime import Runtime
from torpor_snapshotter.runtimes.errors import RuntimeProblem, WrongDigest
from torpor_snapshotter.runtimes.folder import exclusive, file_sha256, installed, publish
from torpor_snapshotter.runtimes.progress import Report

_MEMBERS = ("runtime.json", "runsc", "rootfs.erofs")
_DESCRIPTION_BYTES = 64 << 10


def export_runtime(runtime: Runtime, archive: Path, report: Report) -> None:
    """Write `archive`, complete or not at all."""
    task = f"Writing {archive.name}"
    report(task)
    half_made = archive.with_name(f".{archive.name}.new")
    try:
        with tarfile.open(half_made, "w") as tar:
            for name in _MEMBERS:
                tar.add(runtime.runsc.parent / name, name, filter=_anonymous)
        half_made.rename(archive)
    finally:
        half_made.unlink(missing_ok=True)
    report(task, 1)


def import_runtime(data_dir: Path, archive: Path, report: Report) -> Runtime:
    """Install the runtime in `archive`. Raises `WrongDigest`, and `RuntimeProblem` if it is no such archive."""
    task = f"Reading {archive.name}"
    report(task)
    with exclusive(data_dir, report) as work:
        try:
            with tarfile.open(archive, "r:") as tar:
                facts = json.loads(_read_description(tar))
                for have in installed(data_dir):
                    if (have.runsc_sha256, have.rootfs_sha256) == (facts["runsc_sha256"], facts["rootfs_sha256"]):
                        return have
                version, locked_series = _plain(facts["runsc_version"]), _plain(facts["built_for"])
                for name in _MEMBERS[1:]:
                    _extract(tar, name, work / name)
        except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise RuntimeProblem(f"{archive} is not a runtime made by `torpor runtime export`: {error}") from error
        for name, key in (("runsc", "runsc_sha256"), ("rootfs.erofs", "rootfs_sha256")):
            if file_sha256(work / name) != facts[key]:
                raise WrongDigest(f"{name} in {archive} has another SHA-256 than the archive says: refused.")
        runtime = publish(data_dir, work / "runsc", work / "rootfs.erofs", version, locked_series)
    report(task, 1)
    return runtime


def _read_description(tar: tarfile.TarFile) -> bytes:
    member = tar.next()
    if member is None or member.name != _MEMBERS[0] or not member.isreg() or member.size > _DESCRIPTION_BYTES:
        raise ValueError("it does not begin with a description")
    return _content(tar, member).read()


def _extract(tar: tarfile.TarFile, name: str, place: Path) -> None:
    """Copy the next member, which must be the plain file `name`: no path of the archive is ever used."""
    member = tar.next()
    if member is None or member.name != name or not member.isreg():
        raise ValueError(f"where {name} should be, it holds {member.name if member else 'nothing'}")
    content = _content(tar, member)
    with place.open("xb") as out:
        while chunk := content.read(1 << 20):
            out.write(chunk)


def _plain(name: object) -> str:
    """`name`, which becomes part of a folder's name."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,100}", name):
        raise ValueError(f"{name!r} is not a version")
    return name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise ValueError(f"{member.name} is no file")
    return content


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
