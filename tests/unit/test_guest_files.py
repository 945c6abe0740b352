"""Work on files by a guest that runs as plain processes of this host."""

import asyncio
import hashlib
import io
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import psutil
import pytest
from tests.support.conversations import Conversation
from tests.support.host_guests import attached, host_guest
from tests.support.house import until

from torpor_worker.files import Archive, Change, FileRefused, FileWork, List, Look, Read
from torpor_worker.guest.file_jobs import FileJobs
from torpor_worker.guest.frames import HOST_MARKER
from torpor_worker.guest.outbox import Outbox
from torpor_worker.guest_code import guest_command
from torpor_worker.guest_link import GuestLink

BIG = os.urandom(1 << 20) * 3 + HOST_MARKER * 5000


@pytest.fixture
async def fifos(tmp_path: Path) -> AsyncIterator[tuple[Path, Path]]:
    async with host_guest(tmp_path) as fifos:
        yield fifos


@pytest.fixture
async def link(fifos: tuple[Path, Path]) -> AsyncIterator[GuestLink]:
    link = await attached(fifos, new=True)
    yield link
    await link.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


async def change(link: GuestLink, change: Change, body: bytes = b"", position: int = 0) -> None:
    transfer = await link.work_on_files(change)
    await transfer.send(body)
    await transfer.prepared()
    await link.apply_change(position, transfer)
    await transfer.ended()


async def read(link: GuestLink, work: FileWork) -> bytes:
    transfer = await link.work_on_files(work)
    data = b""
    while piece := await transfer.receive():
        data += piece
    return data


async def refused(link: GuestLink, work: FileWork) -> str:
    transfer = await link.work_on_files(work)
    with pytest.raises(FileRefused) as error:
        await (transfer.prepared() if isinstance(work, Change) else transfer.ended())
    return error.value.code


async def test_a_file_is_written_whole_and_read_back(link: GuestLink, folder: Path) -> None:
    await change(link, Change("write", f"{folder}/new/deep/file"), BIG)
    assert (folder / "new/deep/file").read_bytes() == BIG
    assert await read(link, Read(f"{folder}/new/deep/file")) == BIG
    assert await read(link, Read(f"{folder}/new/deep/file", start=5, stop=9)) == BIG[5:9]
    assert await read(link, Read(f"{folder}/new/deep/file", start=-7)) == BIG[-7:]
    assert (folder / "new/deep/file").stat().st_mode & 0o777 == 0o644
    assert os.listdir(folder / "new/deep") == ["file"]


async def test_nothing_is_seen_of_a_write_before_it_is_applied(link: GuestLink, folder: Path) -> None:
    (folder / "file").write_text("old")
    transfer = await link.work_on_files(Change("write", f"{folder}/file"))
    await transfer.send(b"new")
    await transfer.prepared()
    assert (folder / "file").read_text() == "old"
    assert (await link.ping()).last_position == -1
    await link.apply_change(7, transfer)
    await transfer.ended()
    assert (folder / "file").read_text() == "new"
    assert (await link.ping()).last_position == 7


async def test_what_is_given_up_leaves_nothing(link: GuestLink, folder: Path) -> None:
    for work in ("write", "unpack"):
        transfer = await link.work_on_files(Change(work, f"{folder}/thing"))  # type: ignore[arg-type]
        await transfer.send(_archive({"a": b"1"}))
        await transfer.close()
    await until(lambda: os.listdir(folder) == [])


async def test_another_host_finds_nothing_of_what_was_not_applied(
    fifos: tuple[Path, Path], link: GuestLink, folder: Path
) -> None:
    transfer = await link.work_on_files(Change("write", f"{folder}/thing"))
    await transfer.send(b"1" * 100_000)
    await transfer.prepared()
    await link.close()
    second = await attached(fifos, new=False)
    await until(lambda: os.listdir(folder) == [])
    await change(second, Change("write", f"{folder}/thing"), b"2")
    assert (folder / "thing").read_bytes() == b"2"
    await second.close()


async def test_files_are_at_hand_while_code_never_ends(link: GuestLink, folder: Path) -> None:
    talk = Conversation(link)
    seq = await talk.say("print('it runs', flush=True)\nwhile True: pass")
    await talk.hear(until="it runs\n")
    await change(link, Change("write", f"{folder}/file"), b"data", position=1)
    assert await read(link, Read(f"{folder}/file")) == b"data"
    await link.interrupt(seq, step="interrupt")
    assert (await talk.hear()).error["name"] == "KeyboardInterrupt"


async def test_an_instruction_behind_a_change_finds_it_made(link: GuestLink, folder: Path) -> None:
    for number in range(20):
        transfer = await link.work_on_files(Change("write", f"{folder}/{number}"))
        await transfer.prepared()
        await link.apply_change(2 * number, transfer)
        await link.execute(2 * number + 1, number, f"import os\nos.path.exists('{folder}/{number}')", replaying=False)
        assert (await Conversation(link).hear()).value == "True"


async def test_a_worker_that_is_killed_is_an_error_and_leaves_nothing(link: GuestLink, folder: Path) -> None:
    transfer = await link.work_on_files(Change("write", f"{folder}/thing"))
    await transfer.send(b"1")
    await until(lambda: os.listdir(folder))
    _kill_worker()
    with pytest.raises(FileRefused) as error:
        await transfer.prepared()
    assert error.value.code == "file_failed"
    await until(lambda: os.listdir(folder) == [])


async def test_a_change_whose_worker_is_killed_when_it_is_applied_is_made_all_the_same(
    link: GuestLink, folder: Path
) -> None:
    transfer = await link.work_on_files(Change("write", f"{folder}/thing"))
    await transfer.send(b"1")
    await transfer.prepared()
    _kill_worker(signal.SIGSTOP)
    await link.apply_change(1, transfer)
    assert (await link.ping()).applying
    _kill_worker()
    await transfer.ended()
    assert (folder / "thing").read_bytes() == b"1"


@pytest.mark.parametrize("work", ["write", "unpack"])
async def test_a_change_whose_part_was_removed_before_it_is_applied_is_refused(
    link: GuestLink, folder: Path, work: Literal["write", "unpack"]
) -> None:
    transfer = await link.work_on_files(Change(work, f"{folder}/thing"))
    await transfer.send(_archive({"a": b"1"}))
    await transfer.prepared()
    for part in os.listdir(folder):
        shutil.rmtree(folder / part) if work == "unpack" else os.unlink(folder / part)
    await link.apply_change(1, transfer)
    with pytest.raises(FileRefused) as error:
        await transfer.ended()
    assert (error.value.code, error.value.half_made) == ("file_failed", False)


async def test_a_path_that_leads_elsewhere_when_another_worker_goes_on_is_not_followed(
    link: GuestLink, folder: Path
) -> None:
    (folder / "real").mkdir()
    (folder / "other").mkdir()
    (folder / "way").symlink_to("real")
    transfer = await link.work_on_files(Change("write", f"{folder}/way/file"))
    await transfer.send(b"1")
    await transfer.prepared()
    _kill_worker(signal.SIGSTOP)
    await link.apply_change(1, transfer)
    (folder / "way").unlink()
    (folder / "way").symlink_to("other")
    _kill_worker()
    await transfer.ended()
    assert (folder / "real/file").read_bytes() == b"1"
    assert os.listdir(folder / "real") == ["file"]
    assert os.listdir(folder / "other") == []


async def test_a_removal_that_is_refused_when_it_is_made_has_changed_nothing(link: GuestLink, folder: Path) -> None:
    (folder / "thing").mkdir()
    transfer = await link.work_on_files(Change("remove", f"{folder}/thing"))
    await transfer.prepared()
    (folder / "thing/late").write_text("1")
    await link.apply_change(1, transfer)
    with pytest.raises(FileRefused) as error:
        await transfer.ended()
    assert (error.value.code, error.value.half_made) == ("folder_not_empty", False)


async def test_a_folder_is_listed_a_page_at_a_time_with_names_of_any_bytes(link: GuestLink, folder: Path) -> None:
    names = [b"a", "größe 数".encode(), b"\xff\xfe", b"z"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(name)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    import json

    lines = [json.loads(line) for line in (await read(link, List(str(folder), None, 100))).splitlines()]
    kinds = {line["name"]: line["kind"] for line in lines}
    assert kinds == {os.fsdecode(name): "file" for name in names} | {"sub": "folder", "link": "link", "fifo": "fifo"}
    assert next(line["target"] for line in lines if line["name"] == "link") == "nowhere"
    first = await read(link, List(str(folder), None, 3))
    rest = await read(link, List(str(folder), json.loads(first.splitlines()[-1])["name"], 100))
    assert [json.loads(line) for line in (first + rest).splitlines()] == lines
    assert await read(link, Read(str(folder) + "/" + os.fsdecode(b"\xff\xfe"))) == b"\xff\xfe"
    await change(link, Change("write", str(folder) + "/" + os.fsdecode(b"\xfd")), b"new")
    assert b"\xfd" in os.listdir(bytes(folder))


async def test_each_thing_that_is_no_file_is_refused_by_its_name(link: GuestLink, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "sub").mkdir()
    (folder / "sub/x").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "file").touch()
    there = str(folder)
    assert await refused(link, Read(f"{there}/none")) == "file_not_found"
    assert await refused(link, Look(f"{there}/none")) == "file_not_found"
    assert await refused(link, Read(f"{there}/fifo")) == "not_a_file"
    assert await refused(link, Read("/dev/zero")) == "not_a_file"
    assert await refused(link, Read(f"{there}/sub")) == "is_a_folder"
    assert await refused(link, Read(f"{there}/loop")) == "invalid_path"
    assert await refused(link, Read(f"{there}/file/x")) == "not_a_folder"
    assert await refused(link, Read(f"{there}/{'x' * 300}")) == "invalid_path"
    assert await refused(link, Read("a\0b")) == "invalid_path"
    assert await refused(link, List(f"{there}/file", None, 10)) == "not_a_folder"
    assert await refused(link, Archive(f"{there}/file")) == "not_a_folder"
    assert await refused(link, Change("write", f"{there}/sub")) == "is_a_folder"
    assert await refused(link, Change("write", f"{there}/new/")) == "is_a_folder"
    assert await refused(link, Change("write", f"{there}/fifo")) == "not_a_file"
    assert await refused(link, Change("remove", f"{there}/sub")) == "folder_not_empty"
    assert await refused(link, Change("remove", f"{there}/none")) == "file_not_found"
    assert await refused(link, Change("remove", "/", recursive=True)) == "permission_denied"
    assert await refused(link, Change("unpack", f"{there}/file")) == "not_a_folder"


async def test_a_file_that_shrinks_while_it_is_read_is_told_and_one_that_grows_ends_where_it_was(
    link: GuestLink, folder: Path
) -> None:
    path = folder / "file"
    path.write_bytes(BIG)
    transfer = await link.work_on_files(Read(str(path)))
    about = await transfer.begun()
    with path.open("ab") as file:
        file.write(b"more")
    assert len(b"".join([piece async for piece in _pieces(transfer)])) == about["size"] == len(BIG)
    transfer = await link.work_on_files(Read(str(path)))
    await transfer.begun()
    os.truncate(path, 10)
    with pytest.raises(FileRefused) as error:
        [piece async for piece in _pieces(transfer)]
    assert error.value.code == "file_changed"
    assert await refused(link, Read(str(path), tag=about["tag"])) == "file_changed"


async def test_a_file_that_says_it_is_empty_is_read_to_its_end(link: GuestLink) -> None:
    assert b"Linux" in await read(link, Read("/proc/version"))


async def test_files_folders_and_links_are_removed_and_what_they_lead_to_stays(link: GuestLink, folder: Path) -> None:
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub/deep/x").touch()
    (folder / "link").symlink_to("sub")
    await change(link, Change("remove", f"{folder}/link"), position=0)
    assert (folder / "sub/deep/x").exists()
    await change(link, Change("remove", f"{folder}/sub", recursive=True), position=1)
    assert os.listdir(folder) == []


async def test_a_file_keeps_its_mode_and_a_link_its_target(link: GuestLink, folder: Path) -> None:
    (folder / "tool").touch()
    (folder / "tool").chmod(0o750)
    (folder / "link").symlink_to("tool")
    await change(link, Change("write", f"{folder}/link"), b"#!", position=0)
    assert (folder / "link").is_symlink()
    assert (folder / "tool").read_bytes() == b"#!"
    assert (folder / "tool").stat().st_mode & 0o777 == 0o750
    await change(link, Change("write", f"{folder}/tool", mode=0o700), b"#!", position=1)
    assert (folder / "tool").stat().st_mode & 0o777 == 0o700


async def test_a_folder_goes_out_and_in_as_an_archive(link: GuestLink, folder: Path) -> None:
    source = folder / "source"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(BIG)
    (source / "sub" / os.fsdecode(b"\xff")).write_text("raw")
    (source / "sub/link").symlink_to("../big")
    os.mkfifo(source / "fifo")
    archive = await read(link, Archive(str(source)))
    await change(link, Change("unpack", f"{folder}/copy"), archive, position=0)
    copy = folder / "copy"
    assert sorted(os.listdir(bytes(copy))) == [b"big", b"sub"]
    assert (copy / "big").read_bytes() == BIG
    assert (copy / "sub" / os.fsdecode(b"\xff")).read_text() == "raw"
    assert os.readlink(copy / "sub/link") == "../big"
    (copy / "mine").write_text("stays")
    (copy / "big").write_text("goes")
    await change(link, Change("unpack", f"{folder}/copy"), archive, position=1)
    assert sorted(os.listdir(copy)) == ["big", "mine", "sub"]
    assert hashlib.sha256((copy / "big").read_bytes()).digest() == hashlib.sha256(BIG).digest()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "link/out"])
async def test_an_archive_cannot_leave_its_folder(link: GuestLink, folder: Path, name: str) -> None:
    (folder / "target").mkdir()
    (folder / "out").mkdir()
    body = _archive({name: b"x"}, link=str(folder / "out"))
    transfer = await link.work_on_files(Change("unpack", f"{folder}/target"))
    await transfer.send(body)
    if name.startswith("/"):  # taken as below the folder, as tar does
        await transfer.prepared()
        await transfer.close()
    else:
        with pytest.raises(FileRefused) as error:
            await transfer.prepared()
        assert error.value.code == "invalid_archive"
    await until(lambda: os.listdir(folder / "target") == [])
    assert os.listdir(folder / "out") == []


async def test_a_link_in_the_target_is_not_followed_out_of_it(link: GuestLink, folder: Path) -> None:
    (folder / "target").mkdir()
    (folder / "out").mkdir()
    (folder / "target/sub").symlink_to(folder / "out")
    transfer = await link.work_on_files(Change("unpack", f"{folder}/target"))
    await transfer.send(_archive({"sub/x": b"x"}))
    with pytest.raises(FileRefused) as error:
        await transfer.prepared()
    assert error.value.code == "not_a_folder"
    assert os.listdir(folder / "out") == []


async def test_what_is_no_archive_is_refused(link: GuestLink, folder: Path) -> None:
    transfer = await link.work_on_files(Change("unpack", f"{folder}/target"))
    await transfer.send(b"no archive" * 1000)
    with pytest.raises(FileRefused) as error:
        await transfer.prepared()
    assert error.value.code == "invalid_archive"
    await until(lambda: os.listdir(folder) == [])


async def test_many_transfers_share_a_link(link: GuestLink, folder: Path) -> None:
    bodies = {number: os.urandom(300_000) for number in range(20)}

    async def up(number: int, body: bytes) -> None:
        transfer = await link.work_on_files(Change("write", f"{folder}/{number}"))
        await transfer.send(body)
        await transfer.prepared()
        await link.apply_change(number, transfer)
        await transfer.ended()

    # Positions are applied in order: a later one that came first would make the earlier ones be ignored.
    for number, body in bodies.items():
        await up(number, body)
    read_back = await asyncio.gather(*(read(link, Read(f"{folder}/{number}")) for number in bodies))
    assert dict(zip(bodies, read_back, strict=True)) == bodies


async def _pieces(transfer: object) -> AsyncIterator[bytes]:
    while piece := await transfer.receive():  # type: ignore[attr-defined]
        yield piece


def _archive(files: dict[str, bytes], link: str | None = None) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        if link is not None:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.SYMTYPE, link
            if "link/out" in files:
                tar.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return body.getvalue()


def test_a_process_that_was_given_the_number_of_a_dead_worker_is_left_alone() -> None:
    jobs = FileJobs(Outbox())
    jobs.open(0, {"work": "look", "path": "/", "digest": False, "window": 1 << 20})
    job = jobs._jobs[0]
    assert job.connection is not None
    os.kill(job.pid, signal.SIGKILL)
    os.waitpid(job.pid, 0)
    other = subprocess.Popen(["sleep", "60"])
    job.pid = other.pid  # as it happens, once the dead one was reaped
    jobs.reaped(other.pid, 0)
    while jobs._jobs:
        jobs.serve({job.connection.fileno(): select.POLLIN} if job.connection is not None else {})
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    finally:
        other.kill()
        other.wait()


def _kill_worker(number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to the newest child of the guest's supervisor."""
    command = list(guest_command(sys.executable))
    guest = next(child for child in psutil.Process().children() if child.cmdline()[1:] == command[1:])
    workers = sorted(guest.children(), key=lambda child: (child.create_time(), child.pid))
    workers[-1].send_signal(number)
