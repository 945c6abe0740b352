"""What a machine's `pip` understands of its command line."""

from __future__ import annotations

import io
import signal
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from torpor_worker.guest.pip_command import Arguments, Refused, await_answer, is_local, request, unpack


@pytest.mark.parametrize(
    ("line", "command", "requirements"),
    [
        ("install tidy", "install", ["tidy"]),
        ("--quiet install -U tidy>=1 broom[dust]", "install", ["tidy>=1", "broom[dust]"]),
        ("install -qU --index-url https://example.com tidy", "install", ["tidy"]),
        ("install --index-url=https://example.com tidy", "install", ["tidy"]),
        ("install -t /tmp/x tidy", "install", ["tidy"]),
        ("install -t/tmp/x tidy", "install", ["tidy"]),
        ("install -i https://example.com -- tidy", "install", ["tidy"]),
        ("install ./here.whl tidy", "install", ["tidy"]),
        ("install .", "install", []),
        ("install -e .", "install", []),
        ("install there.whl", "install", []),
        ("install https://example.com/tidy.whl", "install", ["https://example.com/tidy.whl"]),
        ("list", "list", []),
        ("", "", []),
    ],
)
def test_requirements_are_what_is_named_and_not_here(line: str, command: str, requirements: list[str]) -> None:
    arguments = Arguments(line.split())
    assert (arguments.command, arguments.requirements) == (command, requirements)


def test_files_of_requirements_are_read_with_those_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("broom\n-r all.txt\n")
    (tmp_path / "all.txt").write_text(
        "# all\ntidy >= 1 # new\n-i https://example.com\n./x.whl\nsoap \\\n >2\n-r more.txt\n"
    )
    (tmp_path / "limits.txt").write_text("broom<3\n")
    arguments = Arguments(["install", "-r", f"{tmp_path}/all.txt", f"-c{tmp_path}/limits.txt", "-r", "/nowhere"])
    assert arguments.requirements[:3] == ["tidy >= 1", "soap   >2", "broom"]
    assert arguments.constraints == ["broom<3"]


def test_options_say_what_is_wished() -> None:
    asked = request(Arguments(["install", "-U", "--pre", "--no-deps", "tidy"]), {"a": "1"})
    assert (asked["upgrade"], asked["prereleases"], asked["no_dependencies"], asked["fresh"]) == (
        True,
        True,
        True,
        False,
    )
    assert request(Arguments(["install", "--target", "x", "tidy"]), {})["fresh"]
    assert request(Arguments(["download", "tidy"]), {})["fresh"]


def test_a_folder_of_the_name_of_a_package_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tidy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_local("tidy")
    assert is_local("./tidy")
    assert is_local(f"{tmp_path}/tidy")


def test_nothing_of_an_archive_leaves_its_folder(tmp_path: Path) -> None:
    archive, folder = tmp_path / "in" / "x.tar", tmp_path / "out"
    archive.parent.mkdir()
    folder.mkdir()
    with tarfile.open(archive, "w") as packed:
        for name in ("a.whl", "../b.whl", "/tmp/c.whl"):
            info = tarfile.TarInfo(name)
            info.size = 2
            packed.addfile(info, io.BytesIO(b"hi"))
        link = tarfile.TarInfo("d.whl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    unpack(str(archive), str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["a.whl", "b.whl", "c.whl"]
    assert not archive.exists()


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_the_archive_counts_however_it_came(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    ours, theirs = pair
    path = tmp_path / "x.tar"
    ours.sendall(f'{{"path": "{path}"}}\n{{"kno'.encode())

    def answer() -> None:
        time.sleep(0.1)
        path.touch()
        ours.sendall(b'wn": true}\n{"refused": "Not then."}\n')

    thread = threading.Thread(target=answer)
    thread.start()
    assert await_answer(theirs) == str(path)
    thread.join()
    for each in pair:
        each.close()


def test_what_comes_when_nobody_waits_any_more_is_removed(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = pair
    path = tmp_path / "x.tar"

    def interrupt(*_: object) -> None:
        path.touch()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        ours.sendall(f'{{"path": "{path}"}}\n'.encode())
        with pytest.raises(KeyboardInterrupt):
            await_answer(theirs)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not path.exists()
    for each in pair:
        each.close()


def test_a_refusal_is_one(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    ours, theirs = pair
    ours.sendall(f'{{"path": "{tmp_path}/x.tar"}}\n{{"refused": "No."}}\n'.encode())
    with pytest.raises(Refused, match="No"):
        await_answer(theirs)
    ours.close()
    with pytest.raises(Refused, match="too often"):
        await_answer(theirs)
    theirs.close()
