"""`complete`: what could follow at a cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api


async def complete(api: Api, machine: str, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await api.client.post(f"/v1/machine/{machine}/complete", json=body)
    return answer.status_code, answer.json()


async def test_a_machine_knows_its_own_variables_asleep_or_not_and_its_log_stays_as_it_is(api: Api) -> None:
    machine = await api.new_machine()
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "number = 3; numeral = 4"})
    await api.client.post(f"/v1/machine/{machine}/sleep")
    assert await complete(api, machine, code="numb") == (200, {"matches": ["number"], "start": 0, "end": 4})
    found = {"matches": ["number", "numeral"], "start": 2, "end": 5}
    assert await complete(api, machine, code="1+num + 2", cursor=5) == (200, found)
    history = (await api.client.get(f"/v1/machine/{machine}/exec")).json()["instructions"]
    assert [row["instruction_seq"] for row in history] == [0]


@pytest.mark.parametrize("body", [{}, {"code": "a", "cursor": 2}, {"code": "a", "cursor": -1}, {"code": "a\0"}])
async def test_what_is_no_cursor_is_refused(api: Api, body: dict[str, Any]) -> None:
    status, answer = await complete(api, await api.new_machine(), **body)
    assert (status, answer["code"]) == (422, "invalid_request")


async def test_the_sdk_completes(live: Api) -> None:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key="alice.0123456789abcdef") as client:
        machine = client.machine("typed")
        await machine.run("number = 3")
        assert await machine.complete("x = numb") == torpor.Completion(matches=("number",), start=4, end=8)
        assert (await machine.complete("x = numb", 2)).matches == ()
