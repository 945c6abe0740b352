"""`PATCH` of a machine: what is changed, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.api import OTHER_KEY, Api


async def change(api: Api, machine: str, **body: Any) -> dict[str, Any]:
    answer = await api.client.patch(f"/v1/machine/{machine}", json=body)
    assert answer.status_code == 200, answer.text
    detail: dict[str, Any] = answer.json()
    return detail


async def test_what_is_absent_stays(api: Api) -> None:
    machine = await api.new_machine()
    before = (await api.client.get(f"/v1/machine/{machine}")).json()
    assert await change(api, machine) == before
    assert (await change(api, machine, idle_seconds=None))["idle_seconds"] is None
    assert (await change(api, machine, tags={"a": "1", "b": "2"}))["idle_seconds"] is None
    assert (await change(api, machine, tags={"a": None, "b": "3"}))["tags"] == {"b": "3"}
    assert (await change(api, machine, durability="instruction"))["tags"] == {"b": "3"}


async def test_the_list_finds_a_machine_by_its_new_tags(api: Api) -> None:
    machine = await api.new_machine()
    await change(api, machine, tags={"a": "1"})
    found = (await api.client.post("/v1/machine/list", json={"tags": {"a": "1"}})).json()["machines"]
    assert [one["name"] for one in found] == [machine]


async def test_an_awake_machine_is_under_its_new_settings_at_once(api: Api) -> None:
    machine = await api.new_machine()
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "a = 3"})
    await change(api, machine, memory_mb=2048, durability="instruction")
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "a"})
    detail = (await api.client.get(f"/v1/machine/{machine}")).json()
    assert detail["state"] == "awake"
    snapshots = (await api.client.get(f"/v1/machine/{machine}/snapshots")).json()["snapshots"]
    assert [one["seq"] for one in snapshots] == [1]


async def test_less_memory_than_a_machine_uses_or_was_saved_with_is_refused(api: Api) -> None:
    machine = await api.new_machine()
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "use(600 << 20)"})
    answer = await api.client.patch(f"/v1/machine/{machine}", json={"memory_mb": 512})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "601 MiB" in answer.json()["message"]
    assert (await api.client.get(f"/v1/machine/{machine}")).json()["memory_mb"] == 1024
    assert (await change(api, machine, memory_mb=700))["memory_mb"] == 700


@pytest.mark.parametrize(
    "body",
    [
        {"memory_mb": None},
        {"durability": None},
        {"durability": "sometimes"},
        {"idle_seconds": 0},
        {"memory_mb": 1},
        {"tags": {"": "x"}},
        {"tags": {f"t{number}": "x" for number in range(40)}},
        {"name": "other"},
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused_and_changes_nothing(api: Api, body: dict[str, Any]) -> None:
    machine = await api.new_machine()
    before = await change(api, machine, tags={f"u{number}": "x" for number in range(40)})
    answer = await api.client.patch(f"/v1/machine/{machine}", json={"idle_seconds": 7, **body})
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(next(iter(body)))
    assert (await api.client.get(f"/v1/machine/{machine}")).json() == before


async def test_another_accounts_machine_cannot_be_changed(api: Api) -> None:
    machine = await api.new_machine()
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    answer = await api.client.patch(f"/v1/machine/{machine}", json={"idle_seconds": 7}, headers=headers)
    assert answer.status_code == 404
