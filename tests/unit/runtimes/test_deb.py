from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from torpor_snapshotter.runtimes.deb import unpack_deb
from torpor_snapshotter.runtimes.errors import RuntimeProblem
from torpor_snapshotter.runtimes.rootfs import is_wanted
from torpor_snapshotter.runtimes.tree import Tree


@pytest.fixture
def _strange_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def member(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    return info


def write_deb(path: Path, members: list[tarfile.TarInfo], *, compression: str = "xz") -> Path:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w" if compression == "zst" else f"w:{compression}") as tar:
        for info in members:
            content = info.name.encode() if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    body = zstandard.compress(data.getvalue()) if compression == "zst" else data.getvalue()
    archive = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"data.tar.{compression}", body)):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        archive += header.encode() + content + b"\n" * (len(content) % 2)
    path.write_bytes(archive)
    return path


@pytest.mark.usefixtures("_strange_umask")
@pytest.mark.parametrize("compression", ["xz", "zst"])
def test_a_package_is_unpacked_with_fixed_modes_under_any_umask(tmp_path: Path, compression: str):
    deb = write_deb(
        tmp_path / "a.deb",
        [
            member("./usr/bin/", tarfile.DIRTYPE, 0o2775),
            member("./usr/bin/su", mode=0o4755),
            member("./usr/bin/alias", tarfile.SYMTYPE, link="su"),
            member("./usr/bin/second", tarfile.LNKTYPE, link="./usr/bin/su"),
            member("./etc/secret", mode=0o600),
        ],
        compression=compression,
    )
    tree = Tree(tmp_path / "tree")

    unpack_deb(deb, tree, is_wanted)

    assert (tree.root / "usr/bin/su").read_bytes() == b"./usr/bin/su"
    assert (tree.root / "usr/bin/su").stat().st_mode & 0o7777 == 0o755
    assert (tree.root / "etc/secret").stat().st_mode & 0o7777 == 0o644
    assert (tree.root / "usr/bin").stat().st_mode & 0o7777 == 0o755
    assert (tree.root / "usr/bin/alias").readlink() == Path("su")
    assert (tree.root / "usr/bin/second").samefile(tree.root / "usr/bin/su")


def test_files_for_the_old_places_land_below_usr(tmp_path: Path):
    deb = write_deb(tmp_path / "a.deb", [member("./lib", tarfile.SYMTYPE, link="usr/lib"), member("./lib/x/y.so")])
    tree = Tree(tmp_path / "tree")

    unpack_deb(deb, tree, is_wanted)

    assert (tree.root / "lib").readlink() == Path("usr/lib")
    assert (tree.root / "usr/lib/x/y.so").is_file()


def test_manuals_are_left_out_and_licences_kept(tmp_path: Path):
    names = ["./usr/share/man/man1/a.1.gz", "./usr/share/doc/a/changelog.gz", "./usr/share/doc/a/copyright"]
    deb = write_deb(tmp_path / "a.deb", [member(name) for name in names])
    tree = Tree(tmp_path / "tree")

    unpack_deb(deb, tree, is_wanted)

    assert [path.name for path in tree.root.rglob("*") if path.is_file()] == ["copyright"]


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped")],
        [member("./usr/../../escaped")],
        [member("./out", tarfile.SYMTYPE, link="../.."), member("./out/escaped")],
        [member("./escaped", tarfile.LNKTYPE, link="../../outside")],
        [member("./dev/null", tarfile.CHRTYPE)],
    ],
    ids=["parent", "inner parent", "through a link", "hard link", "device"],
)
def test_a_package_cannot_write_outside_its_tree(tmp_path: Path, members: list[tarfile.TarInfo]):
    (tmp_path / "outside").write_text("mine")
    deb = write_deb(tmp_path / "a.deb", members)

    with pytest.raises(RuntimeProblem, match="refused"):
        unpack_deb(deb, Tree(tmp_path / "a" / "tree"), lambda _: True)

    assert list(tmp_path.rglob("escaped")) == []


def test_a_file_that_is_no_package_is_refused(tmp_path: Path):
    (tmp_path / "a.deb").write_bytes(b"<html>")

    with pytest.raises(RuntimeProblem, match="not a Debian package"):
        unpack_deb(tmp_path / "a.deb", Tree(tmp_path / "tree"), lambda _: True)
