"""Names that accounts choose: get or create, everywhere a machine's own name may stand, freed with the machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.api import OTHER_KEY

import torpor

if TYPE_CHECKING:
    from tests.support.api import Api

KEY = "alice.0123456789abcdef"


def client_of(live: Api, key: str = KEY) -> torpor.AsyncClient:
    return torpor.AsyncClient(url=str(live.client.base_url), api_key=key)


async def test_put_makes_a_machine_once_with_the_settings_of_the_first(api: Api) -> None:
    first = await api.client.put("/v1/machine/analysis", json={"memory_mb": 512, "tags": {"a": "1"}})
    again = await api.client.put("/v1/machine/analysis", json={"memory_mb": 2048})
    assert (first.status_code, again.status_code) == (201, 200)
    name = first.json()["machine_name"]
    assert first.json() == {"machine_name": name, "alias": "analysis", "created": True}
    assert again.json() == {"machine_name": name, "alias": "analysis", "created": False}
    detail = (await api.client.get("/v1/machine/analysis")).json()
    assert (detail["name"], detail["alias"], detail["memory_mb"]) == (name, "analysis", 512)


async def test_many_who_ask_at_once_get_one_machine(api: Api) -> None:
    answers = await asyncio.gather(*(api.client.put("/v1/machine/one", json={}) for _ in range(20)))
    assert len({answer.json()["machine_name"] for answer in answers}) == 1
    assert [answer.json()["created"] for answer in answers].count(True) == 1
    assert len((await api.client.get("/v1/machine/list")).json()["machines"]) == 1


async def test_an_alias_stands_wherever_a_name_does(live: Api) -> None:
    await live.client.put("/v1/machine/my.alias_1-x", json={})
    async with client_of(live) as client:
        machine = client.machine("my.alias_1-x", create=False)
        result = await machine.run("a + 5")
        detail = await machine.detail()
        assert result.machine_name == detail.name
        stream = machine.stream("print('adding') or a + 5")
        assert (await stream.result()).machine_name == detail.name
        await machine.sync()
        assert [one.seq async for one in machine.history()] == [1, 0]
        assert (await machine.instruction(1)).state == "finished"
        (fork,) = await machine.fork()
        assert (await fork.detail()).alias is None
        assert (await machine.rollback(seq=0)).left_behind == (1,)
        assert (await machine.detail()).alias == "my.alias_1-x"


@pytest.mark.parametrize("alias", ["new", "list", "x" * 64, "-a", ".a", "a b", "ü", "aB3dE6gH9jK2mN5p", "a%2Fb"])
async def test_what_is_no_alias_is_refused(api: Api, alias: str) -> None:
    answer = await api.client.put(f"/v1/machine/{alias}", json={})
    assert answer.status_code in (404, 422), answer.text
    assert (await api.client.get("/v1/machine/list")).json()["machines"] == []


async def test_an_alias_is_the_accounts_own(api: Api) -> None:
    mine = (await api.client.put("/v1/machine/analysis", json={})).json()["machine_name"]
    other = {"Authorization": f"Bearer {OTHER_KEY}"}
    assert (await api.client.get("/v1/machine/analysis", headers=other)).json()["code"] == "machine_not_found"
    theirs = (await api.client.put("/v1/machine/analysis", json={}, headers=other)).json()["machine_name"]
    assert mine != theirs


async def test_an_alias_is_given_taken_and_freed(api: Api) -> None:
    one, two = await api.new_machine(), await api.new_machine()
    assert (await api.client.patch(f"/v1/machine/{one}", json={"alias": "a"})).json()["alias"] == "a"
    taken = await api.client.patch(f"/v1/machine/{two}", json={"alias": "a"})
    assert (taken.status_code, taken.json()["code"]) == (409, "alias_taken")
    assert one in taken.json()["message"]
    assert (await api.client.patch("/v1/machine/a", json={"alias": "a"})).status_code == 200
    assert (await api.client.patch("/v1/machine/a", json={"alias": None})).json()["alias"] is None
    assert (await api.client.patch(f"/v1/machine/{two}", json={"alias": "a"})).json()["name"] == two
    await api.client.delete("/v1/machine/a")
    assert (await api.client.put("/v1/machine/a", json={})).json()["created"]
    assert (await api.client.patch(f"/v1/machine/{one}", json={"alias": one})).status_code == 422


async def test_the_sdk_makes_a_machine_on_first_use_and_finds_it_ever_after(live: Api) -> None:
    async with client_of(live) as client:
        assert (await client.machine("analysis").run("a = 3")).seq == 0
        assert (await client.machine("analysis").run("a + 5")).value == "8"
        assert (await client.machine("streamed").stream("print('adding') or a + 5").result()).seq == 0
        with pytest.raises(torpor.MachineNotFound):
            await client.machine("missing", create=False).run("1")
        with pytest.raises(torpor.MachineNotFound):
            await client.machine("missing").delete()
        with pytest.raises(torpor.InvalidRequest, match="alias"):
            await client.machine("no good").run("1")
        made = await client.new_machine(alias="analysis", memory_mb=512)
        assert made.name == (await client.machine("analysis").detail()).name
        assert (await made.update(alias=None)).alias is None
        assert [machine.info.alias for machine in await client.machines() if machine.info] == ["streamed", None]


async def test_the_synchronous_sdk_does_so_too(live: Api) -> None:
    def work() -> None:
        with torpor.Client(url=str(live.client.base_url), api_key=KEY) as client:
            assert client.machine("analysis").run("a = 3").seq == 0
            assert client.machine("analysis").stream("a + 5").result().value == "8"
            assert client.machine("streamed").stream("a = 3").result().seq == 0
            (fork,) = client.machine("analysis").fork()
            fork.delete()
            with pytest.raises(torpor.MachineNotFound):
                fork.run("1")

    await asyncio.to_thread(work)
