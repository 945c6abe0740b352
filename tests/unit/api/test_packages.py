"""Packages over HTTP and through the SDK, on sandboxes that are none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.api import KEY, Api

import torpor


async def test_an_installation_is_a_command_with_an_answer_of_its_own(api: Api) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(f"/v1/machine/{machine}/packages", json={"packages": ["tidy", "a-b"]})
    assert answer.status_code == 200
    done = answer.json()
    assert done["installed"] == [{"name": "tidy", "version": "1.0"}, {"name": "a-b", "version": "1.0"}]
    assert (done["machine"], done["seq"]) == (machine, 0)
    [command] = (await api.client.get(f"/v1/machine/{machine}/commands")).json()["commands"]
    assert command["command"] == ["pip", "install", "--no-color", "--progress-bar=off", "--", "tidy", "a-b"]
    assert command["timeout_seconds"] == 300


async def test_a_refusal_is_an_error_with_the_sentence(api: Api) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(f"/v1/machine/{machine}/packages", json={"packages": ["refused"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "packages_not_installed")
    assert answer.json()["message"] == "The server does not allow the package refused."


async def test_a_repeat_installs_nothing_again(api: Api) -> None:
    machine = await api.new_machine()
    for _ in range(2):
        answer = await api.client.post(
            f"/v1/machine/{machine}/packages", json={"packages": ["tidy"]}, headers={"Idempotency-Key": "k"}
        )
        assert answer.json()["seq"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"packages": []},
        {"packages": "tidy"},
        {"packages": ["--index-url=https://example.com"]},
        {"packages": ["../x"]},
        {"packages": ["tidy; rm -rf /"]},
        {"packages": ["tidy @ https://example.com/x.whl"]},
        {"packages": ["x" * 500]},
        {"packages": ["tidy"] * 300},
        {"packages": ["tidy"], "index": "https://example.com"},
        {"packages": ["tidy"], "timeout_seconds": 0},
    ],
)
async def test_what_names_no_package_is_refused_before_anything_runs(api: Api, body: dict[str, Any]) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(f"/v1/machine/{machine}/packages", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert (await api.client.get(f"/v1/machine/{machine}/commands")).json()["commands"] == []


async def test_the_sdk_installs_and_raises(live: Api) -> None:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key=KEY) as client:
        machine = await client.new_machine()
        done = await machine.packages.install("tidy", upgrade=True)
        assert [(each.name, each.version) for each in done.installed] == [("tidy", "1.0")]
        with pytest.raises(torpor.PackagesNotInstalled, match="does not allow"):
            await machine.packages.install(["tidy", "refused"])
