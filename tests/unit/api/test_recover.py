"""Parked machines over HTTP: each way out, and that none takes a snapshot out of reach."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import Api

THIRD = "a = 2; had.append(2); print('three')"


async def run(api: Api, machine: str, code: str) -> str | None:
    answer = await api.client.post(f"/v1/machine/{machine}/run", json={"code": code})
    assert answer.status_code == 200, answer.text
    value: str | None = answer.json()["result"].get("value")
    return value


async def recover(api: Api, machine: str, **asked: Any) -> dict[str, Any]:
    answer = await api.client.post(f"/v1/machine/{machine}/recover", json=asked)
    body: dict[str, Any] = {"status": answer.status_code, **answer.json()}
    return body


async def generations(api: Api, machine: str) -> list[int]:
    listed = (await api.client.get(f"/v1/machine/{machine}/snapshots")).json()["snapshots"]
    return [one["generation"] for one in listed]


@pytest.fixture
async def parked(api: Api) -> str:
    """A machine that was parked behind its second snapshot, with its third instruction to blame."""
    machine = await api.new_machine()
    for number in range(2):
        await run(api, machine, f"a = {number}; had = [*globals().get('had', []), a]")
        await api.client.post(f"/v1/machine/{machine}/sync")
    await run(api, machine, THIRD)
    assert (await api.client.post(f"/v1/machine/{machine}/debug/crash")).json()["crashed"]
    await api.services.machines.withdraw(machine, "none")  # its worker is as good as dead
    api.snapshotter.destroyed.discard(machine)
    await api.services.ledger.open_session("another life")
    hold = await api.services.ledger.acquire(machine)
    assert hold is not None
    await api.services.ledger.park(hold, "its process died again and again", 2)
    return machine


async def test_a_parked_machine_is_tried_again(api: Api, parked: str) -> None:
    before = await generations(api, parked)
    done = await recover(api, parked, how="retry")
    assert (done["status"], done["generation"]) == (200, before[0])
    assert await run(api, parked, "a") == "2"
    assert set(before) <= set(await generations(api, parked))
    again = await recover(api, parked, how="retry")
    assert (again["status"], again["code"]) == (409, "machine_not_parked")


@pytest.mark.parametrize(("named", "place", "value"), [({}, 0, "[0, 1]"), ({"seq": 1}, 1, "[0, 2]")])
async def test_a_parked_machine_is_brought_back_without_an_instruction_from_before_it(
    api: Api, parked: str, named: dict[str, int], place: int, value: str
) -> None:
    before = await generations(api, parked)
    done = await recover(api, parked, how="skip", **named)
    assert (done["status"], done["undone"], done["generation"]) == (200, named.get("seq", 2), before[place])
    assert await run(api, parked, "had") == value
    assert set(before) <= set(await generations(api, parked))


async def test_a_parked_machine_goes_back_to_its_newest_usable_snapshot_or_to_one_that_is_named(
    api: Api, parked: str
) -> None:
    newest, older = await generations(api, parked)
    done = await recover(api, parked, how="rollback")
    assert (done["status"], done["generation"], done["left_behind"]) == (200, newest, [2])
    assert await run(api, parked, "a") == "1"
    assert {newest, older} <= set(await generations(api, parked))


async def test_a_snapshot_that_recovery_has_set_aside_is_gone_back_to_only_if_it_is_named(
    api: Api, parked: str
) -> None:
    await set_all_aside(api, parked)
    refused = await recover(api, parked, how="rollback")
    assert (refused["status"], refused["code"]) == (404, "snapshot_not_found")
    older = (await generations(api, parked))[-1]
    assert (await recover(api, parked, how="rollback", generation=older))["status"] == 200
    assert await run(api, parked, "a") == "0"


async def set_all_aside(api: Api, machine: str) -> None:
    """Park it anew, after a recovery that could use none of its snapshots."""
    ledger = api.services.ledger
    await ledger.retry("alice", machine)
    hold = await ledger.acquire(machine)
    assert hold is not None
    for snapshot in [*(await ledger.generations(hold))[1:], None]:
        hold = await ledger.go_back(hold, None if snapshot is None else snapshot.generation)
    await ledger.park(hold, "nothing helps")


async def test_an_export_has_the_log_and_leaves_the_machine_parked(
    api: Api, parked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # this sandbox is none: it would read the host's
    answer = await api.client.post(f"/v1/machine/{parked}/recover", json={"how": "export"})
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        about = json.load(archive.extractfile("machine.json") or io.BytesIO())
        log = [json.loads(line) for line in archive.extractfile("log.jsonl") or ()]
    assert about["machine"]["parked_reason"] == "its process died again and again"
    assert [entry["instruction_seq"] for entry in log] == [0, 1, 2]
    assert log[2]["code"] == THIRD
    assert log[2]["events"][0]["text"] == "three\n"
    assert (await api.client.get(f"/v1/machine/{parked}")).json()["state"] == "parked"


async def test_what_does_not_fit_together_is_refused(api: Api, parked: str) -> None:
    for asked in ({"how": "undo"}, {"how": "retry", "seq": 1}, {"how": "skip", "generation": 1}, {}):
        assert (await recover(api, parked, **asked))["status"] == 422
    assert (await recover(api, parked, how="skip", seq=9))["code"] == "instruction_not_found"


async def test_a_machine_that_is_asleep_has_nothing_to_crash(api: Api) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(f"/v1/machine/{machine}/debug/crash")
    assert answer.json() == {"machine_name": machine, "crashed": False}
