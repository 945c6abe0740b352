"""API keys by the API: made once, listed without secrets, revoked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.support.api import OTHER_KEY

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api


async def keys(api: Api, api_key: str | None = None) -> list[dict[str, Any]]:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    found: list[dict[str, Any]] = (await api.client.get("/v1/keys", headers=headers)).json()["keys"]
    return found


async def test_a_new_key_opens_the_account_and_its_secret_is_never_seen_again(api: Api) -> None:
    (first,) = await keys(api)
    assert (first["name"], first["current"]) == ("", True)
    made = (await api.client.post("/v1/keys", json={"name": "laptop"})).json()
    assert made["api_key"].startswith("alice.")
    assert [(key["id"], key["name"], key["current"]) for key in await keys(api, made["api_key"])] == [
        (first["id"], "", False),
        (made["id"], "laptop", True),
    ]
    assert made["api_key"].partition(".")[2] not in (await api.client.get("/v1/keys")).text
    assert len(await keys(api, OTHER_KEY)) == 1


async def test_a_revoked_key_opens_nothing_from_that_moment_on(api: Api) -> None:
    made = (await api.client.post("/v1/keys", json={})).json()
    headers = {"Authorization": f"Bearer {made['api_key']}"}
    assert (await api.client.get("/v1/whoami", headers=headers)).status_code == 200
    assert (await api.client.delete(f"/v1/keys/{made['id']}", headers=headers)).json() == {"id": made["id"]}
    assert (await api.client.get("/v1/whoami", headers=headers)).json()["code"] == "unauthorized"
    again = await api.client.delete(f"/v1/keys/{made['id']}")
    assert (again.status_code, again.json()["code"]) == (404, "key_not_found")


async def test_the_last_key_and_other_accounts_keys_stay(api: Api) -> None:
    (mine,) = await keys(api)
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    theirs = (await api.client.post("/v1/keys", json={}, headers=headers)).json()
    last = await api.client.delete(f"/v1/keys/{mine['id']}")
    assert (last.status_code, last.json()["code"]) == (409, "last_key")
    assert (await api.client.delete(f"/v1/keys/{theirs['id']}")).json()["code"] == "key_not_found"
    assert (await api.client.get("/v1/whoami")).status_code == 200


async def test_the_sdk_shows_a_new_key_only_to_those_who_ask_for_it(live: Api) -> None:
    async with torpor.AsyncClient(url=str(live.client.base_url), api_key="alice.0123456789abcdef") as client:
        made = await client.new_key("laptop")
        assert made.api_key.get_secret_value() not in repr(made) + str(made)
        assert [key.name for key in await client.keys()] == ["", "laptop"]
        await client.revoke_key(made.id)
        with pytest.raises(torpor.KeyNotFound):
            await client.revoke_key(made.id)
        (only,) = await client.keys()
        with pytest.raises(torpor.LastKey):
            await client.revoke_key(only.id)
