"""What `GET /metrics` says."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from tests.support.api import Api


async def samples(client: httpx2.AsyncClient) -> dict[str, float]:
    """The samples by name and labels."""
    answer = await client.get("/metrics", headers={"Authorization": ""})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_count_instructions_and_saves_and_need_no_key(api: Api) -> None:
    machine = await api.new_machine()
    for code in ("a = 1", "a"):
        await api.client.post(f"/v1/machine/{machine}/run", json={"code": code})
    awake = await samples(api.client)
    assert awake["torpor_instruction_seconds_count"] == 2
    assert awake["torpor_awake_machines"] == 1
    assert awake["torpor_wake_seconds_count"] == awake["torpor_wake_phase_seconds_count phase=lease"] == 1
    await api.client.post(f"/v1/machine/{machine}/sleep")
    asleep = await samples(api.client)
    assert asleep["torpor_awake_machines"] == 0
    assert asleep["torpor_save_seconds_count"] == 1
    assert asleep["torpor_stored_bytes"] == asleep["torpor_save_stored_bytes_total"] > 0
    assert asleep["torpor_save_failures_total"] == 0
