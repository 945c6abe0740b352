"""Unpacking `.deb` files without Debian's tools (format: deb(5), an ar archive with a tar file in it)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import zstandard

from torpor_snapshotter.runtimes.errors import RuntimeProblem
from torpor_snapshotter.runtimes.tree import Tree

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


def unpack_deb(deb: Path, tree: Tree, wanted: Callable[[str], bool]) -> None:
    """Put the package's files into `tree`, those whose path (`usr/bin/env`) is `wanted`. No scripts are run.

    Raises `RuntimeProblem` if the file is not a package or holds an unsafe path.
    """
    name, body = _data_member(deb)
    stream: IO[bytes] = io.BytesIO(body)
    if name.endswith(".zst"):
        stream = io.BytesIO(zstandard.ZstdDecompressor().stream_reader(stream).read())
    with tarfile.open(fileobj=stream, mode="r:*") as archive:
        for member in archive:
            path = member.name.removeprefix("./").strip("/")
            if path in ("", ".") or not wanted(path):
                continue
            if member.isdir():
                tree.directory(path)
            elif member.issym():
                if path not in ("bin", "sbin", "lib", "lib64"):
                    tree.symlink(path, member.linkname)
            elif member.islnk():
                tree.hard_link(path, member.linkname)
            elif member.isreg():
                content = archive.extractfile(member) or io.BytesIO()
                tree.file(path, content, executable=bool(member.mode & 0o111))
            else:
                raise RuntimeProblem(f"{deb.name} holds {path!r}, which is no file, folder or link: refused.")


def _data_member(deb: Path) -> tuple[str, bytes]:
    with deb.open("rb") as file:
        if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise RuntimeProblem(f"{deb.name} is not a Debian package.")
        while len(header := file.read(_AR_HEADER_BYTES)) == _AR_HEADER_BYTES:
            name = header[:16].decode().strip().rstrip("/")
            size = int(header[48:58])
            if name.startswith("data.tar"):
                return name, file.read(size)
            file.seek(size + size % 2, io.SEEK_CUR)
    raise RuntimeProblem(f"{deb.name} holds no data.")
