"""What uploads may take of the server's disk: in all, by account, and while the disk has room."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.support.api import KEY, OTHER_KEY, Api, application, behind_a_server

import torpor
from torpor_api.collector import Collector
from torpor_worker.bodies import Bodies, BodyLimits

MIB = 1 << 20
OTHER = {"Authorization": f"Bearer {OTHER_KEY}"}


@pytest.fixture
async def bounded(tmp_path: Path) -> AsyncIterator[Api]:
    """An account may upload 3 MiB."""
    async with application(tmp_path, limits=BodyLimits(account_bytes=3 * MIB)) as api:
        yield api


async def _pieces(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(size_bytes >> 16):
        yield bytes(1 << 16)


def _refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _kept(api: Api) -> list[int]:
    folder = api.services.config.data_dir / "files"
    return sorted(path.stat().st_size for path in folder.iterdir())


async def _sweep(api: Api) -> None:
    bodies = api.services.machines.files._bodies
    await Collector(api.services.ledger, api.snapshotter, set, lambda _: True, bodies=bodies).sweep_bodies()


async def test_an_account_may_upload_so_much_and_others_as_much_again(bounded: Api) -> None:
    first, second = await bounded.new_machine(), await bounded.new_machine()
    put = bounded.client.put
    assert (await put(f"/v1/machine/{first}/files/a", content=bytes(2 * MIB))).is_success
    refused = await put(f"/v1/machine/{second}/files/b", content=bytes(2 * MIB))
    assert _refusal(refused) == (507, "storage_full")
    assert refused.json()["message"] == "Of what one account uploads the server keeps 3 MiB at most."
    assert (await put(f"/v1/machine/{second}/files/b", content=b"small")).is_success
    other = (await bounded.client.post("/v1/machine/new", json={}, headers=OTHER)).json()["machine_name"]
    assert (await put(f"/v1/machine/{other}/files/a", content=bytes(2 * MIB), headers=OTHER)).is_success
    await bounded.client.delete(f"/v1/machine/{first}")
    await _sweep(bounded)
    assert (await put(f"/v1/machine/{second}/files/b", content=bytes(2 * MIB))).is_success


async def test_what_is_longer_than_it_may_be_is_refused_before_any_of_it_is_taken(bounded: Api) -> None:
    machine = await bounded.new_machine()
    taken: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in _pieces(4 * MIB):
            taken.append(piece)
            yield piece

    headers = {"Content-Length": str(4 * MIB)}
    answer = await bounded.client.put(f"/v1/machine/{machine}/files/a", content=pieces(), headers=headers)
    assert _refusal(answer) == (507, "storage_full")
    assert (taken, _kept(bounded)) == ([], [])


async def test_a_client_that_is_refused_while_it_sends_hears_why(bounded: Api, tmp_path: Path) -> None:
    machine = await bounded.new_machine()
    file = tmp_path / "large"
    file.write_bytes(bytes(40 * MIB))
    async with (
        behind_a_server(bounded) as live,
        torpor.AsyncClient(api_key=KEY, url=str(live.client.base_url)) as client,
    ):
        with pytest.raises(torpor.StorageFull, match="3 MiB"):
            await client.machine(machine).files.upload(file, "large")


async def test_what_does_not_say_how_long_it_is_is_cut_off_and_leaves_nothing(bounded: Api) -> None:
    machine = await bounded.new_machine()
    for _ in range(2):  # what was refused does not count
        answer = await bounded.client.put(f"/v1/machine/{machine}/files/a", content=_pieces(4 * MIB))
        assert _refusal(answer) == (507, "storage_full")
        assert _kept(bounded) == []
    assert (await bounded.client.put(f"/v1/machine/{machine}/files/a", content=_pieces(2 * MIB))).is_success


async def test_what_a_machine_refuses_counts_until_it_is_swept_away(bounded: Api) -> None:
    machine = await bounded.new_machine()
    put = bounded.client.put
    assert (await put(f"/v1/machine/{machine}/files/sub/a", content=b"1")).is_success
    for refusal in ((409, "is_a_folder"), (507, "storage_full")):
        assert _refusal(await put(f"/v1/machine/{machine}/files/sub", content=bytes(2 * MIB))) == refusal
    await _sweep(bounded)
    assert (await put(f"/v1/machine/{machine}/files/g", content=bytes(2 * MIB))).is_success


async def test_empty_files_count_too(tmp_path: Path) -> None:
    async with application(tmp_path, limits=BodyLimits(account_bytes=10_000)) as api:
        machine = await api.new_machine()
        answers = [await api.client.put(f"/v1/machine/{machine}/files/{n}", content=b"") for n in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 507]


async def test_while_the_disk_has_less_free_than_is_to_stay_so_nothing_is_taken(tmp_path: Path) -> None:
    about = os.statvfs(tmp_path)
    reserve_bytes = about.f_bavail * about.f_frsize - 64 * MIB
    async with application(tmp_path, limits=BodyLimits(reserve_bytes=reserve_bytes)) as api:
        machine = await api.new_machine()
        answer = await api.client.put(f"/v1/machine/{machine}/files/a", content=bytes(128 * MIB))
        assert _refusal(answer) == (507, "storage_full")
        assert "free" in answer.json()["message"]
        assert (await api.client.get(f"/v1/machine/{machine}/files")).json()["entries"] == []
    async with application(tmp_path, limits=BodyLimits(reserve_bytes=reserve_bytes * 10)) as api:
        answer = await api.client.put(f"/v1/machine/{machine}/files/a", content=b"")
        assert _refusal(answer) == (507, "storage_full")


async def test_what_no_machine_of_this_size_has_room_for_is_refused_before_it_is_taken(bounded: Api) -> None:
    new = await bounded.client.post("/v1/machine/new", json={"memory_mb": 256})
    address = f"/v1/machine/{new.json()['machine_name']}/files/a"
    headers = {"Content-Length": str((256 << 20) + 1)}
    answer = await bounded.client.put(address, content=_pieces(0), headers=headers)
    assert _refusal(answer) == (507, "disk_full")


async def test_what_is_there_at_the_start_counts(bounded: Api) -> None:
    machine = await bounded.new_machine()
    await bounded.client.put(f"/v1/machine/{machine}/files/a", content=bytes(2 * MIB))
    folder = bounded.services.config.data_dir / "files"
    next_one = Bodies(folder, BodyLimits(account_bytes=3 * MIB))
    owners = await bounded.services.ledger.owners_of_bodies()
    assert list(owners.values()) == ["alice"]
    next_one.count(owners | {"gone": "alice"})
    with pytest.raises(Exception, match="3 MiB"):
        async with next_one.stored("alice", _pieces(2 * MIB)):
            pass
    await next_one.remove(list(owners))
    async with next_one.stored("alice", _pieces(2 * MIB)) as body:
        assert body.size_bytes == 2 * MIB
