"""Files over HTTP: bytes both ways, names of any kind, ranges, and what is refused."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx2
import pytest
from tests.support.api import OTHER_KEY, Api, behind_a_server

from torpor_api.collector import Collector
from torpor_api.edge import FILE_LIMIT_BYTES
from torpor_worker.bodies import Bodies

BODY = os.urandom(300_000)


@pytest.fixture
async def files(api: Api) -> str:
    """The address of a new machine's files."""
    return f"/v1/machine/{await api.new_machine()}/files"


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["code"])


async def test_bytes_go_in_and_come_out_with_their_digest(api: Api, files: str) -> None:
    put = await api.client.put(f"{files}/data/big.bin", content=BODY)
    sha256 = hashlib.sha256(BODY).hexdigest()
    assert put.json() == {"path": "data%2Fbig.bin", "size": len(BODY), "sha256": sha256}
    got = await api.client.get(f"{files}/data/big.bin")
    assert got.content == BODY
    assert got.headers["content-length"] == str(len(BODY))
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''big.bin"
    head = await api.client.head(f"{files}/data/big.bin", params={"digest": "sha256"})
    assert head.headers["torpor-sha256"] == sha256
    assert head.headers["etag"] == got.headers["etag"]
    assert (head.headers["torpor-kind"], head.headers["torpor-mode"]) == ("file", "0644")
    assert (await api.client.head(f"{files}/data")).headers["torpor-kind"] == "folder"


async def test_paths_are_relative_to_home_absolute_or_full_of_dots(api: Api, files: str) -> None:
    await api.client.put(f"{files}/a/b", content=b"1")
    for path in ("a/b", "%2Fhome%2Fuser%2Fa%2Fb", "/home/user/a/b", "a%2F..%2Fa%2Fb", "..%2F..%2F..%2Fhome/user/a/b"):
        assert (await api.client.get(f"{files}/{path}")).content == b"1", path


@pytest.mark.parametrize("name", ["größe 数 🙂", os.fsdecode(b"\xff\xfe"), "%2F?#&+ ", "new\nline", "..."])
async def test_names_of_any_bytes_are_written_listed_and_read(api: Api, files: str, name: str) -> None:
    address = quote(os.fsencode(name), safe="")
    assert (await api.client.put(f"{files}/{address}", content=b"1")).status_code == 200
    (entry,) = (await api.client.get(files)).json()["entries"]
    assert entry["path"] == address
    assert entry["name"] == os.fsencode(name).decode("utf-8", "backslashreplace")
    assert (await api.client.get(f"{files}/{entry['path']}")).content == b"1"


async def test_a_folder_is_listed_in_pages(api: Api, files: str) -> None:
    for number in range(5):
        await api.client.put(f"{files}/sub/{number}", content=b"x" * number)
    first = (await api.client.get(files, params={"path": "sub", "limit": 3})).json()
    assert [(entry["name"], entry["path"], entry["size"]) for entry in first["entries"]] == [
        (str(number), f"sub%2F{number}", number) for number in range(3)
    ]
    rest = await api.client.get(f"{files}?path=sub&limit=3&cursor={first['next_cursor']}")
    assert [entry["name"] for entry in rest.json()["entries"]] == ["3", "4"]
    assert rest.json()["next_cursor"] is None
    assert [entry["kind"] for entry in (await api.client.get(files)).json()["entries"]] == ["folder"]


async def test_a_download_is_resumed_and_never_mixed_with_another_file(api: Api, files: str) -> None:
    await api.client.put(f"{files}/f", content=BODY)
    tag = (await api.client.head(f"{files}/f")).headers["etag"]
    part = await api.client.get(f"{files}/f", headers={"Range": "bytes=100000-199999", "If-Match": tag})
    assert (part.status_code, part.content) == (206, BODY[100_000:200_000])
    assert part.headers["content-range"] == f"bytes 100000-199999/{len(BODY)}"
    rest = await api.client.get(f"{files}/f", headers={"Range": "bytes=200000-", "If-Range": tag})
    assert rest.content == BODY[200_000:]
    assert (await api.client.get(f"{files}/f", headers={"Range": "bytes=-7"})).content == BODY[-7:]
    assert (await api.client.get(f"{files}/f", headers={"Range": "lines=1-2"})).content == BODY
    beyond = await api.client.get(f"{files}/f", headers={"Range": f"bytes={len(BODY)}-"})
    assert (beyond.status_code, code(beyond)) == (416, "range_not_satisfiable")
    await api.client.put(f"{files}/f", content=b"other")
    other = await api.client.get(f"{files}/f", headers={"Range": "bytes=2-", "If-Match": tag})
    assert (other.status_code, code(other)) == (412, "file_changed")
    assert (await api.client.get(f"{files}/f", headers={"Range": "bytes=2-", "If-Range": tag})).content == b"other"


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-9", "bytes=-5"])
async def test_of_an_empty_file_all_is_given_and_no_range(api: Api, files: str, asked: str) -> None:
    await api.client.put(f"{files}/f", content=b"")
    answer = await api.client.get(f"{files}/f", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, b"")
    assert "content-range" not in answer.headers


async def test_a_folder_comes_out_as_an_archive_and_goes_in_as_one(api: Api, files: str) -> None:
    await api.client.put(f"{files}/sub/a", content=b"1")
    await api.client.put(f"{files}/sub/deep/b", content=b"2")
    archive = await api.client.get(f"{files}/sub", params={"archive": "tar"})
    assert archive.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        assert sorted(tar.getnames()) == ["a", "deep/b"]
    assert (await api.client.put(f"{files}/copy", params={"archive": "tar"}, content=archive.content)).is_success
    assert (await api.client.get(f"{files}/copy/deep/b")).content == b"2"


async def test_what_is_removed_is_gone_and_a_full_folder_only_with_what_is_in_it(api: Api, files: str) -> None:
    await api.client.put(f"{files}/sub/a", content=b"1")
    assert code(await api.client.delete(f"{files}/sub")) == "folder_not_empty"
    assert (await api.client.delete(f"{files}/sub/a")).is_success
    missing = await api.client.delete(f"{files}/sub/a")
    assert (missing.status_code, code(missing)) == (404, "file_not_found")
    await api.client.put(f"{files}/sub/a", content=b"1")
    assert (await api.client.delete(f"{files}/sub", params={"recursive": "true"})).is_success
    assert (await api.client.get(files)).json()["entries"] == []


async def test_what_cannot_be_done_is_told_in_a_sentence_with_its_path(api: Api, files: str) -> None:
    await api.client.put(f"{files}/sub/a", content=b"1")
    answer = await api.client.get(f"{files}/none")
    assert (answer.status_code, answer.json()["message"]) == (404, "none: no such file or directory.")
    answer = await api.client.get(f"{files}/%FF")
    assert answer.json()["message"] == "\\xff: no such file or directory."
    assert code(await api.client.get(f"{files}/sub")) == "is_a_folder"
    assert code(await api.client.put(f"{files}/sub/", content=b"")) == "is_a_folder"
    assert code(await api.client.get(files, params={"path": "sub/a"})) == "not_a_folder"
    assert code(await api.client.put(f"{files}/a%00b", content=b"")) == "invalid_path"
    assert code(await api.client.put(f"{files}/{'x' * 5000}", content=b"")) == "invalid_path"
    assert code(await api.client.put(f"{files}/a?mode=999", content=b"")) == "invalid_request"
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    assert code(await api.client.get(f"{files}/sub/a", headers=headers)) == "machine_not_found"


async def test_a_body_may_be_larger_than_json_but_has_an_end(api: Api, files: str) -> None:
    assert (await api.client.put(f"{files}/f", content=bytes(9 << 20))).is_success
    answer = await api.client.put(f"{files}/f", content=b"", headers={"Content-Length": str(FILE_LIMIT_BYTES + 1)})
    assert (answer.status_code, code(answer)) == (413, "body_too_large")


async def test_an_upload_that_is_cut_off_changes_nothing_and_leaves_nothing(api: Api) -> None:
    async with behind_a_server(api) as live:
        machine = await live.new_machine()
        files = f"/v1/machine/{machine}/files"
        await live.client.put(f"{files}/f", content=b"old")

        async def half() -> AsyncIterator[bytes]:
            yield BODY
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await live.client.put(f"{files}/f", content=half())
        assert (await live.client.get(f"{files}/f")).content == b"old"


async def test_a_download_whose_machine_dies_is_cut_and_not_taken_for_whole(api: Api) -> None:
    async with behind_a_server(api) as live:
        machine = await live.new_machine()
        path = f"/v1/machine/{machine}/files/f"
        await live.client.put(path, content=bytes(20 << 20))
        with pytest.raises(httpx2.RemoteProtocolError):
            await _download_over_a_crash(live, machine, path)
        assert len((await live.client.get(path)).content) == 20 << 20


async def _download_over_a_crash(live: Api, machine: str, path: str) -> None:
    async with live.client.stream("GET", path) as answer:
        async for _ in answer.aiter_raw(65536):
            await live.services.machines.crash(machine)


async def test_bodies_are_given_up_when_no_recovery_can_need_them(api: Api, files: str) -> None:
    machine = files.split("/")[3]
    bodies = Bodies(api.services.config.data_dir / "files")
    collector = Collector(api.services.ledger, api.snapshotter, set, lambda _: True, bodies=bodies)

    async def kept() -> int:
        await collector.release_bodies()
        await collector.sweep_bodies()
        return len(list(bodies.keys()))

    await api.client.put(f"{files}/f", content=b"1")
    (bodies._folder / "leftover").write_bytes(b"of an upload that was cut short")
    assert await kept() == 1
    for code in ("1", "2"):
        await api.client.post(f"/v1/machine/{machine}/run", json={"code": code})
        await api.client.post(f"/v1/machine/{machine}/sync")
    assert await kept() == 1  # for a while, as all snapshots
    await api.services.ledger._writer.run(_grow_old)
    assert await kept() == 0
    seq = await api.execute(machine, "3")
    await api.client.get(f"/v1/machine/{machine}/exec/{seq}/result")
    assert (await api.client.get(f"{files}/f")).content == b"1"
    await api.client.put(f"{files}/g", content=b"1")
    assert await kept() == 1
    await api.client.delete(f"/v1/machine/{machine}")
    assert await kept() == 0


def _grow_old(connection: object) -> None:
    from sqlalchemy import Connection, update

    from torpor_api.ledger.schema import entries

    assert isinstance(connection, Connection)
    connection.execute(update(entries).values(finished_at=1))


async def test_a_fork_carries_what_it_replays_after_its_parent_is_gone(api: Api, files: str) -> None:
    machine = files.split("/")[3]
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "a = 1"})
    await api.client.post(f"/v1/machine/{machine}/sync")
    await api.client.put(f"{files}/f", content=b"1")
    ran = (await api.client.post(f"/v1/machine/{machine}/run", json={"code": "content('/home/user/f')"})).json()
    await api.client.put(f"{files}/f", content=b"2")
    forked = await api.client.post(f"/v1/machine/{machine}/fork", json={"at": {"seq": ran["instruction_seq"]}})
    (fork,) = forked.json()["machines"]
    await api.client.delete(f"/v1/machine/{machine}")
    bodies = Bodies(api.services.config.data_dir / "files")
    await Collector(api.services.ledger, api.snapshotter, set, lambda _: True, bodies=bodies).sweep_bodies()
    assert (await api.client.get(f"/v1/machine/{fork}/files/f")).content == b"1"


async def test_many_clients_write_and_read_one_machine_at_once(api: Api, files: str) -> None:
    bodies = {f"{number}": os.urandom(50_000) for number in range(40)}
    await asyncio.gather(*(api.client.put(f"{files}/{name}", content=body) for name, body in bodies.items()))
    answers = await asyncio.gather(*(api.client.get(f"{files}/{name}") for name in bodies))
    assert [answer.content for answer in answers] == list(bodies.values())
