"""Part 1 of the API: what ForeverVM's published clients, and their siblings in JavaScript and Rust, rely on."""

from __future__ import annotations

import json
import re

import httpx2
import pytest
from tests.support.api import KEY, OTHER_KEY, Api


async def test_whoami_names_the_account(api: Api) -> None:
    answer = await api.client.get("/v1/whoami")

    assert (answer.status_code, answer.content) == (200, b'{"account":"alice"}')


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"tags":{}}', b'{"memory_mb":null}', b'{"max_runtime_ms":1}'])
async def test_a_machine_is_made_from_whatever_clients_send(api: Api, body: bytes) -> None:
    answer = await api.client.post("/v1/machine/new", content=body)

    assert list(answer.json()) == ["machine_name"]
    assert re.fullmatch(r"[A-Za-z0-9]{16}", answer.json()["machine_name"])


async def test_lists_show_machines_newest_first_with_the_fields_of_part_1(api: Api) -> None:
    first, second = await api.new_machine(), await api.new_machine()

    for answer in (
        await api.client.get("/v1/machine/list"),
        await api.client.post("/v1/machine/list", json={}),
        await api.client.post("/v1/machine/list"),
    ):
        machines = answer.json()["machines"]
        assert [machine["name"] for machine in machines] == [second, first]
        shown = machines[0]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", shown["created_at"])
        assert shown["running"] is False
        assert shown["has_pending_instruction"] is False
        assert shown["expires_at"] is None
        assert shown["tags"] == {}


async def test_a_list_with_tags_shows_machines_that_carry_all_of_them(api: Api) -> None:
    tagged = await api.client.post("/v1/machine/new", json={"tags": {"env": "test", "who": "me"}})
    await api.client.post("/v1/machine/new", json={"tags": {"env": "test"}})

    answer = await api.client.post("/v1/machine/list", json={"tags": {"env": "test", "who": "me"}})

    assert [machine["name"] for machine in answer.json()["machines"]] == [tagged.json()["machine_name"]]


async def test_lists_are_paged_only_when_a_limit_is_given(api: Api) -> None:
    names = [await api.new_machine() for _ in range(3)]
    page = (await api.client.get("/v1/machine/list", params={"limit": 2})).json()
    rest = (await api.client.get("/v1/machine/list", params={"limit": 2, "cursor": page["next_cursor"]})).json()

    assert [machine["name"] for machine in page["machines"] + rest["machines"]] == names[::-1]
    assert "next_cursor" not in rest


async def test_exec_answers_with_the_seq_and_the_result_waits(api: Api) -> None:
    machine = await api.new_machine()

    accepted = await api.client.post(
        f"/v1/machine/{machine}/exec",
        json={"instruction": {"code": "print(123) or 567", "timeout_seconds": 15}, "interrupt": False},
    )
    result = await api.client.get(f"/v1/machine/{machine}/exec/0/result")

    assert accepted.json() == {"instruction_seq": 0, "interrupted": False, "machine": machine}
    assert result.content == b'{"instruction_id":0,"result":{"value":"567","runtime_ms":1}}'


async def test_a_statement_has_a_null_value_and_an_error_has_no_value(api: Api) -> None:
    machine = await api.new_machine()
    await api.execute(machine, "a = 3")
    statement = (await api.client.get(f"/v1/machine/{machine}/exec/0/result")).json()["result"]
    await api.execute(machine, "1 / 0")
    error = (await api.client.get(f"/v1/machine/{machine}/exec/1/result")).json()["result"]

    assert statement == {"value": None, "runtime_ms": 1}
    assert error == {"error": "ZeroDivisionError: division by zero", "runtime_ms": 1}


async def test_a_picture_that_was_shown_is_the_results_png(api: Api) -> None:
    machine = await api.new_machine()
    await api.execute(machine, """write('display', b'{"data": {"image/png": "aGk="}}')""")

    result = (await api.client.get(f"/v1/machine/{machine}/exec/0/result")).json()
    stream = (await api.client.get(f"/v1/machine/{machine}/exec/0/stream-result")).json()

    assert result["result"] == {"value": None, "data": {"png": "aGk="}, "runtime_ms": 1}
    assert stream["result"] == result["result"]


async def test_a_busy_machine_answers_exec_without_a_seq(api: Api) -> None:
    machine = await api.new_machine()
    await api.execute(machine, "hang()")

    answer = await api.client.post(f"/v1/machine/{machine}/exec", json={"instruction": {"code": "1"}})

    assert answer.is_success
    assert answer.json() == {"interrupted": False, "machine": machine}


async def test_exec_with_interrupt_ends_what_runs_in_an_error(live: Api) -> None:
    machine = await live.new_machine()
    await live.execute(machine, "hang()")
    await _until_running(live, machine)

    answer = await live.client.post(
        f"/v1/machine/{machine}/exec", json={"instruction": {"code": "7"}, "interrupt": True}
    )
    ended = await live.client.get(f"/v1/machine/{machine}/exec/0/result")
    result = await live.client.get(f"/v1/machine/{machine}/exec/1/result")

    assert answer.json() == {"instruction_seq": 1, "interrupted": True, "machine": machine}
    assert ended.json()["result"]["error"].startswith("KeyboardInterrupt")
    assert result.json()["result"]["value"] == "7"


async def test_stream_result_gives_whole_ascii_lines_numbered_over_both_streams(live: Api) -> None:
    machine = await live.new_machine()
    code = "write('stdout', 'é1\\n2'.encode()); write('stderr', b'oops\\n\\n'); write('stdout', b'3\\n4')"
    await live.execute(machine, code)

    answer = await live.client.get(f"/v1/machine/{machine}/exec/0/stream-result")
    late = await live.client.get(f"/v1/machine/{machine}/exec/0/stream-result")

    assert answer.content == late.content
    assert answer.content.decode("ascii").split("\n") == [
        r'{"type":"output","chunk":{"stream":"stdout","data":"\u00e91","seq":0},"instruction_id":0}',
        '{"type":"output","chunk":{"stream":"stderr","data":"oops","seq":1},"instruction_id":0}',
        '{"type":"output","chunk":{"stream":"stderr","data":"","seq":2},"instruction_id":0}',
        '{"type":"output","chunk":{"stream":"stdout","data":"23","seq":3},"instruction_id":0}',
        '{"type":"output","chunk":{"stream":"stdout","data":"4","seq":4},"instruction_id":0}',
        '{"type":"result","instruction_id":0,"result":{"value":null,"runtime_ms":1}}',
        "",
    ]


async def test_stream_result_says_how_much_output_was_over_the_limit(live: Api) -> None:
    machine = await live.new_machine()
    await live.execute(machine, "write('stdout', b'x' * 100_050)")

    answer = await live.client.get(f"/v1/machine/{machine}/exec/0/stream-result")
    lines = [json.loads(line) for line in answer.content.splitlines()]

    assert lines[-2]["chunk"]["data"] == "[50 more bytes of output were over the limit and not kept]"
    assert lines[-1]["type"] == "result"


async def test_a_stream_that_has_begun_goes_on_until_the_result(live: Api) -> None:
    machine = await live.new_machine()
    await live.execute(machine, "print('before'); hang()")

    async with live.client.stream("GET", f"/v1/machine/{machine}/exec/0/stream-result") as stream:
        lines = stream.aiter_lines()
        first = json.loads(await anext(lines))
        await live.client.post(f"/v1/machine/{machine}/interrupt")
        last = json.loads(await anext(lines))

    assert first["chunk"]["data"] == "before"
    assert last["result"]["error"].startswith("KeyboardInterrupt")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer ", "Bearer nodot", "Bearer a.b", "Basic YTpi", f"Token {KEY}"]
)
async def test_no_key_or_a_wrong_one_is_401(api: Api, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    transport = httpx2.ASGITransport(api.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://torpor") as client:
        answer = await client.get("/v1/whoami", headers=headers)

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_another_accounts_machine_cannot_be_told_from_one_that_is_not_there(api: Api) -> None:
    machine = await api.new_machine()
    stranger = {"Authorization": f"Bearer {OTHER_KEY}"}

    def told(answer: httpx2.Response) -> tuple[int, dict[str, str]]:
        return answer.status_code, {name: value for name, value in answer.json().items() if name != "id"}

    for method, path in (
        ("GET", "/v1/machine/{}"),
        ("DELETE", "/v1/machine/{}"),
        ("GET", "/v1/machine/{}/exec"),
        ("GET", "/v1/machine/{}/exec/0"),
        ("GET", "/v1/machine/{}/exec/0/result"),
        ("GET", "/v1/machine/{}/exec/0/stream-result"),
        ("GET", "/v1/machine/{}/exec/0/events"),
        ("POST", "/v1/machine/{}/interrupt"),
        ("POST", "/v1/machine/{}/sleep"),
        ("POST", "/v1/machine/{}/wake"),
        ("POST", "/v1/machine/{}/sync"),
    ):
        theirs = told(await api.client.request(method, path.format(machine), headers=stranger))
        nobodys = told(await api.client.request(method, path.format("A" * 16), headers=stranger))
        assert theirs == nobodys
        assert theirs[0] == 404
    for path, body in (("exec", {"instruction": {"code": "1"}}), ("run", {"code": "1"})):
        theirs = told(await api.client.post(f"/v1/machine/{machine}/{path}", json=body, headers=stranger))
        assert theirs == told(await api.client.post(f"/v1/machine/{'A' * 16}/{path}", json=body, headers=stranger))
        assert theirs[0] == 404


async def test_a_host_without_a_port_and_a_preflight_are_answered(live: Api) -> None:
    plain = await live.client.get("/v1/whoami", headers={"Host": "localhost"})
    preflight = await live.client.options(
        "/v1/machine/new",
        headers={
            "Origin": "https://example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-forevervm-sdk,idempotency-key",
        },
    )
    actual = await live.client.get("/v1/whoami", headers={"Origin": "https://example.org"})
    run = await live.client.post("/v1/run", json={"code": "3 + 5"}, headers={"Origin": "https://example.org"})

    assert plain.is_success
    assert preflight.is_success
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "x-forevervm-sdk" in preflight.headers["access-control-allow-headers"]
    assert actual.headers["access-control-allow-origin"] == "*"
    assert run.json()["result"]["value"] == "8"
    assert run.headers["access-control-allow-origin"] == "*"


async def _until_running(api: Api, machine: str) -> None:
    while (await api.client.get(f"/v1/machine/{machine}/exec/0")).json()["state"] != "running":
        pass
