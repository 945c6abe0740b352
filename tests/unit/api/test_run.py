from __future__ import annotations

from .conftest import Api


async def test_run_answers_with_result_events_and_timings(api: Api) -> None:
    machine = await api.new_machine()
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "a = 3"})
    answer = await api.client.post(f"/v1/machine/{machine}/run", json={"code": "print('hi') or a + 5"})
    body = answer.json()
    assert answer.status_code == 200
    print(body)
    assert body["instruction_seq"] == 1
