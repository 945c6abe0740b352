"""Snapshots over HTTP: list, pin, go back, and take that back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.api import Api


async def run(api: Api, machine: str, code: str) -> str | None:
    answer = await api.client.post(f"/v1/machine/{machine}/run", json={"code": code})
    assert answer.status_code == 200, answer.text
    assert "value" in answer.json()["result"], answer.text
    value: str | None = answer.json()["result"]["value"]
    return value


async def save(api: Api, machine: str) -> int:
    answer = await api.client.post(f"/v1/machine/{machine}/sync")
    assert answer.status_code == 200, answer.text
    generation: int = answer.json()["generation"]
    return generation


async def roll_back(api: Api, machine: str, to: dict[str, int] | None, **more: Any) -> dict[str, Any]:
    answer = await api.client.post(f"/v1/machine/{machine}/rollback", json={"to": to, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_machine_goes_back_to_a_generation_and_forward_again(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    generation = await save(api, machine)
    await run(api, machine, "a = 2")
    done = await roll_back(api, machine, {"generation": generation})

    assert (done["generation"], done["left_behind"], done["replayed"]) == (generation, [1], [])
    assert await run(api, machine, "a") == "1"
    history = (await api.client.get(f"/v1/machine/{machine}/exec")).json()["instructions"]
    assert [row["instruction_seq"] for row in history if row["rolled_back"]] == [1]
    await roll_back(api, machine, done["undo"])
    assert await run(api, machine, "a") == "2"


async def test_a_seq_is_reached_by_replay(api: Api) -> None:
    machine = await api.new_machine()
    for number in range(4):
        await run(api, machine, f"a = {number}")
    done = await roll_back(api, machine, {"seq": 2})

    assert done["replayed"] == [0, 1, 2]
    assert await run(api, machine, "a") == "2"
    back = await roll_back(api, machine, done["undo"])
    assert await run(api, machine, "a") == "3"
    again = await roll_back(api, machine, back["undo"])
    assert (again["replayed"], await run(api, machine, "a")) == ([], "2")


async def test_a_busy_machine_is_left_alone_unless_it_is_to_be_interrupted(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    generation = await save(api, machine)
    await run(api, machine, "a = 2")
    await api.execute(machine, "hang()")
    body = {"to": {"generation": generation}}
    refused = await api.client.post(f"/v1/machine/{machine}/rollback", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "machine_busy")

    await roll_back(api, machine, {"generation": generation}, interrupt=True)
    assert await run(api, machine, "a") == "1"


async def test_a_repeat_with_the_same_key_gets_the_same_answer(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    generation = await save(api, machine)
    await run(api, machine, "a = 2")
    body, headers = {"to": {"generation": generation}}, {"Idempotency-Key": "once"}
    first = await api.client.post(f"/v1/machine/{machine}/rollback", json=body, headers=headers)
    second = await api.client.post(f"/v1/machine/{machine}/rollback", json=body, headers=headers)

    assert first.json() == second.json()
    assert await run(api, machine, "a") == "1"


async def fork(api: Api, machine: str, **asked: Any) -> list[str]:
    answer = await api.client.post(f"/v1/machine/{machine}/fork", json=asked)
    assert answer.status_code == 200, answer.text
    names: list[str] = answer.json()["machines"]
    return names


async def test_forks_go_on_from_the_state_of_now_each_its_own_way(api: Api) -> None:
    body = {"tags": {"user": "42"}, "memory_mb": 512, "idle_seconds": 7}
    machine = (await api.client.post("/v1/machine/new", json=body)).json()["machine_name"]
    await run(api, machine, "a = [1]")
    first, second = await fork(api, machine, count=2)
    [third] = await fork(api, first, tags={"user": "43"})
    for name, value in ((machine, 2), (first, 3), (second, 4), (third, 5)):
        await run(api, name, f"a.append({value})")

    for name, value in ((machine, 2), (first, 3), (second, 4), (third, 5)):
        assert await run(api, name, "a") == f"[1, {value}]"
    seeds = {await run(api, name, "seed.hex()") for name in (machine, first, second, third)}
    assert len(seeds) == 4
    history = (await api.client.get(f"/v1/machine/{first}/exec")).json()["instructions"]
    assert [row["instruction_seq"] for row in history] == [2, 1, 0]
    detail = (await api.client.get(f"/v1/machine/{second}")).json()
    assert (detail["tags"], detail["memory_mb"], detail["idle_seconds"]) == ({"user": "42"}, 512, 7.0)
    assert (await api.client.get(f"/v1/machine/{third}")).json()["tags"] == {"user": "43"}


async def test_a_fork_at_a_seq_has_the_instructions_that_led_there(api: Api) -> None:
    machine = await api.new_machine()
    for number in range(3):
        await run(api, machine, f"a = {number}")
    [name] = await fork(api, machine, at={"seq": 1})

    assert await run(api, name, "a") == "1"
    history = (await api.client.get(f"/v1/machine/{name}/exec")).json()["instructions"]
    assert [(row["instruction_seq"], row["code"]) for row in history] == [(2, "a"), (1, "a = 1"), (0, "a = 0")]


async def test_a_fork_outlives_the_machine_that_it_came_from(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    generation = await save(api, machine)
    await run(api, machine, "a = 2")
    [name] = await fork(api, machine, at={"generation": generation})
    await api.client.delete(f"/v1/machine/{machine}")

    assert await run(api, name, "a") == "1"
    done = await roll_back(api, name, {"generation": 0})
    assert done["left_behind"] == [0]
    assert await run(api, name, "a") == "1"


async def test_a_busy_machine_is_forked_as_it_was_last_saved_at_rest_and_the_answer_says_so(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    generation = await save(api, machine)
    await run(api, machine, "a = 2")
    await api.execute(machine, "hang()")
    answer = (await api.client.post(f"/v1/machine/{machine}/fork")).json()
    assert (answer["generation"], answer["lacks"]) == (generation, [1, 2])
    assert await run(api, answer["machines"][0], "a") == "1"


async def test_a_busy_machine_that_was_never_saved_is_forked_only_at_a_point(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    await api.execute(machine, "hang()")
    refused = await api.client.post(f"/v1/machine/{machine}/fork")
    assert (refused.status_code, refused.json()["code"]) == (409, "machine_busy")

    [name] = await fork(api, machine, at={"seq": 0})
    assert await run(api, name, "a") == "1"


async def test_a_hundred_forks_at_once_are_a_hundred_machines(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = [1]")
    names = await fork(api, machine, count=100)
    assert len(set(names)) == 100
    assert {await run(api, name, "a") for name in names[::33]} == {"[1]"}
    await api.client.delete(f"/v1/machine/{machine}")
    assert await run(api, names[-1], "a") == "[1]"


async def test_the_first_wake_of_a_fork_reads_nothing_from_the_store_if_the_image_is_here(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    here, elsewhere = await fork(api, machine, count=2)
    await api.images.forget(elsewhere, 0)
    api.snapshotter.damaged_reads = 100
    await api.client.delete(f"/v1/machine/{machine}")
    assert await run(api, here, "a") == "1"
    assert api.snapshotter.damaged_reads == 100
    api.snapshotter.damaged_reads = 0
    assert await run(api, elsewhere, "a") == "1"


async def test_a_hundred_forks_of_which_one_fails_leave_nothing(api: Api, tmp_path: Path) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    await save(api, machine)
    stored = await api.snapshotter.list()
    api.snapshotter.derivations_left = 99
    refused = await api.client.post(f"/v1/machine/{machine}/fork", json={"count": 100})
    assert (refused.status_code, refused.json()["code"]) == (503, "save_failed")
    assert await api.snapshotter.list() == stored
    assert len(api.snapshotter.destroyed) == 100
    assert [path.name for path in (tmp_path / "images").iterdir()] == [machine]


async def test_a_fork_that_fails_leaves_nothing_in_the_store(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    await save(api, machine)
    stored = await api.snapshotter.list()
    api.snapshotter.derivations_left = 2
    refused = await api.client.post(f"/v1/machine/{machine}/fork", json={"count": 3})
    assert (refused.status_code, refused.json()["code"]) == (503, "save_failed")
    assert await api.snapshotter.list() == stored


async def test_a_repeated_fork_makes_no_more_machines(api: Api) -> None:
    machine = await api.new_machine()
    await run(api, machine, "a = 1")
    answers = [
        await api.client.post(f"/v1/machine/{machine}/fork", json={"count": 2}, headers={"Idempotency-Key": "once"})
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    listed = (await api.client.get("/v1/machine/list")).json()["machines"]
    assert {row["name"] for row in listed} == {machine, *answers[0].json()["machines"]}
    refused = await api.client.post(f"/v1/machine/{machine}/fork", json={"count": 101})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("to", "status", "code"),
    [
        ({"generation": 7}, 404, "snapshot_not_found"),
        ({"seq": 7}, 404, "instruction_not_found"),
        ({}, 422, "invalid_request"),
        ({"seq": 0, "generation": 0}, 422, "invalid_request"),
        ({"seq": -1}, 422, "invalid_request"),
        (None, 422, "invalid_request"),
    ],
)
async def test_a_point_that_is_none_is_refused(api: Api, to: object, status: int, code: str) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(f"/v1/machine/{machine}/rollback", json={"to": to})

    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_snapshots_are_listed_pinned_and_unpinned(api: Api) -> None:
    machine = await api.new_machine()
    assert (await api.client.get(f"/v1/machine/{machine}/snapshots")).json() == {"snapshots": []}
    await run(api, machine, "a = 1")
    generation = await save(api, machine)
    pinned = await api.client.put(f"/v1/machine/{machine}/snapshots/{generation}/pin")
    assert pinned.json()["pinned"] is True
    [listed] = (await api.client.get(f"/v1/machine/{machine}/snapshots")).json()["snapshots"]
    assert listed == pinned.json()
    assert (listed["seq"], listed["quiescent"], listed["current"], listed["parent"]) == (0, True, True, None)
    unpinned = await api.client.delete(f"/v1/machine/{machine}/snapshots/{generation}/pin")
    assert unpinned.json()["pinned"] is False
    missing = await api.client.put(f"/v1/machine/{machine}/snapshots/9/pin")
    assert (missing.status_code, missing.json()["code"]) == (404, "snapshot_not_found")
