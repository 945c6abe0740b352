"""`run`, `events`, history and the transitions: what Torpor adds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from tests.support.api import AUTHORIZATION, Api

from torpor_worker.wake_timer import PHASES


async def test_run_answers_with_everything_in_one_round_trip(api: Api) -> None:
    machine = await api.new_machine()

    answer = await api.client.post(f"/v1/machine/{machine}/run", json={"code": "print('hi') or 3 + 5"})

    body = answer.json()
    assert answer.headers["torpor-instruction-seq"] == "0"
    assert body["machine"] == machine
    assert body["instruction_seq"] == 0
    assert body["result"] == {"value": "8", "runtime_ms": 1}
    assert body["events"] == [{"type": "stdout", "id": "1.3", "text": "hi\n"}]
    assert body["notices"] == []
    assert set(body["timings"]) == {"waited_ms", "runtime_ms", "total_ms", "waited_for_save_ms"}


async def test_run_tells_on_request_how_long_each_phase_of_its_wake_took(api: Api) -> None:
    machine = await api.new_machine()
    run = f"/v1/machine/{machine}/run"
    await api.client.post(run, json={"code": "a = 3"})
    await api.client.post(f"/v1/machine/{machine}/sleep")

    woken = (await api.client.post(run, json={"code": "a + 5", "timings": True})).json()
    awake = (await api.client.post(run, json={"code": "a + 6", "timings": True})).json()

    assert woken["result"]["value"] == "8"
    assert list(woken["timings"]["wake"]) == [*PHASES]
    assert woken["timings"]["wake"]["lease"] > 0
    assert awake["timings"]["wake"] is None
    history = (await api.client.get(f"/v1/machine/{machine}/exec/1")).json()
    assert history["timings"] == woken["timings"]
    stream = await api.client.post(run, json={"code": "1", "timings": True}, headers={"Accept": "application/x-ndjson"})
    assert json.loads(stream.text.splitlines()[-1])["timings"]["wake"] is None


async def test_run_on_a_new_machine_names_it(api: Api) -> None:
    first = (await api.client.post("/v1/run", json={"code": "a = 3"})).json()
    second = (await api.client.post(f"/v1/machine/{first['machine']}/run", json={"code": "a + 5"})).json()

    assert second["result"]["value"] == "8"


async def test_a_new_machine_starts_from_the_template_that_run_names(api: Api) -> None:
    machines = [
        (await api.client.post("/v1/run", json={"code": "1", **named})).json()["machine"]
        for named in ({}, {"template": "data"})
    ]
    details = [(await api.client.get(f"/v1/machine/{machine}")).json() for machine in machines]
    assert [detail["template"] for detail in details] == ["python", "data"]
    refused = await api.client.post(f"/v1/machine/{machines[0]}/run", json={"code": "1", "template": "data"})
    assert refused.status_code == 422


async def test_the_longest_time_out_is_what_the_server_allows(api: Api) -> None:
    machine = await api.new_machine()
    asked = {"code": "1", "timeout_seconds": "longest"}
    calls = {
        "run": asked,
        "exec": {"instruction": asked, "queue": True},
        "commands": {"command": "true", "timeout_seconds": "longest"},
        "packages": {"packages": ["tidy"], "timeout_seconds": "longest"},
    }
    for path, body in calls.items():
        assert (await api.client.post(f"/v1/machine/{machine}/{path}", json=body)).status_code < 422, path

    history = (await api.client.get(f"/v1/machine/{machine}/exec")).json()["instructions"]
    commands = (await api.client.get(f"/v1/machine/{machine}/commands")).json()["commands"]
    assert {entry["timeout_seconds"] for entry in history + commands} == {3600}


async def test_an_error_comes_with_its_traceback(api: Api) -> None:
    body = (await api.client.post("/v1/run", json={"code": "1 / 0"})).json()

    assert body["result"]["error"] == "ZeroDivisionError: division by zero"
    assert body["result"]["error_detail"]["name"] == "ZeroDivisionError"
    assert body["events"][-1]["type"] == "error"
    assert body["events"][-1]["traceback"]


async def test_rich_output_keeps_its_order_and_a_bad_bundle_is_text(api: Api) -> None:
    code = (
        "write('stdout', b'one'); write('display', b'{\"data\": {\"image/png\": \"AAAA\"}, \"metadata\": {}}');"
        "write('stdout', b'two\\r'); write('stdout', b'three'); write('display', b'[nonsense')"
    )
    events = (await api.client.post("/v1/run", json={"code": code})).json()["events"]

    assert [(event["type"], event.get("text") or event["data"]) for event in events] == [
        ("stdout", "one"),
        ("display", {"image/png": "AAAA"}),
        ("stdout", "two\rthree"),
        ("display", {"text/plain": "[nonsense"}),
    ]


@pytest.mark.parametrize("levels", [90, 925, 5000])
async def test_a_display_nested_however_deep_can_be_answered(api: Api, levels: int) -> None:
    code = f"write('display', b'{{\"data\": {{\"application/json\": ' + b'[' * {levels} + b']' * {levels} + b'}}}}')"
    answer = await api.client.post("/v1/run", json={"code": code})

    assert answer.status_code == 200
    kind = "application/json" if levels < 100 else "text/plain"
    assert list(answer.json()["events"][0]["data"]) == [kind]


async def test_output_over_the_limit_ends_with_a_marker(api: Api) -> None:
    events = (await api.client.post("/v1/run", json={"code": "write('stdout', b'x' * 100_007)"})).json()["events"]

    assert len(events[0]["text"]) == 100_000
    assert (events[1]["code"], events[1]["truncated_bytes"]) == ("output_truncated", 7)


async def test_run_on_a_busy_machine_is_409_unless_it_queues(live: Api) -> None:
    machine = await live.new_machine()
    await live.execute(machine, "hang()")

    refused = await live.client.post(f"/v1/machine/{machine}/run", json={"code": "1"})
    queued = asyncio.create_task(live.client.post(f"/v1/machine/{machine}/run", json={"code": "2", "queue": True}))
    while len((await live.client.get(f"/v1/machine/{machine}/exec")).json()["instructions"]) < 2:
        pass
    await live.client.post(f"/v1/machine/{machine}/interrupt", json={"seq": 0})

    assert (refused.status_code, refused.json()["code"]) == (409, "machine_busy")
    assert (await queued).json()["result"]["value"] == "2"


async def test_run_streams_events_as_ndjson(live: Api) -> None:
    answer = await live.client.post(
        "/v1/run", json={"code": "print('hi') or 1"}, headers={"Accept": "application/x-ndjson"}
    )
    events = [json.loads(line) for line in answer.text.splitlines()]

    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [event["type"] for event in events] == ["stdout", "result"]
    assert events[-1]["result"] == {"value": "1", "runtime_ms": 1}
    assert events[-1]["machine"] == answer.headers["torpor-machine"]


async def test_sse_goes_on_behind_the_last_event_that_was_read(live: Api) -> None:
    machine = await live.new_machine()
    path = f"/v1/machine/{machine}/exec/0/events"
    await live.execute(machine, "write('stdout', b'one'); write('stderr', b'two')")
    await live.client.get(f"/v1/machine/{machine}/exec/0/result")

    whole = _sse((await live.client.get(path, headers={"Accept": "text/event-stream"})).text)
    rest = _sse(
        (await live.client.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": whole[0]["id"]})).text
    )
    end = await live.client.get(path, headers={"Last-Event-ID": whole[-1]["id"]})

    assert [event["event"] for event in whole] == ["stdout", "stderr", "result"]
    assert rest == whole[1:]
    assert end.status_code == 204


async def test_events_after_a_point_are_those_behind_it(api: Api) -> None:
    machine = await api.new_machine()
    await api.execute(machine, "write('stdout', b'one'); write('stderr', b'two')")

    answer = await api.client.get(f"/v1/machine/{machine}/exec/0/events", params={"after": "1.3"})

    assert [json.loads(line)["type"] for line in answer.text.splitlines()] == ["stderr", "result"]


@pytest.mark.parametrize("after", ["x", "1", "1.", ".1", "1.2.3", "-1.0", "1.9999999999999999999", "1.1\x00"])
async def test_an_id_that_is_none_is_refused(api: Api, after: str) -> None:
    machine = await api.new_machine()
    await api.execute(machine, "1")

    answer = await api.client.get(f"/v1/machine/{machine}/exec/0/events", params={"after": after})

    assert (answer.status_code, answer.json()["message"].split(":")[0]) == (422, "after")


async def test_a_machines_history_has_code_output_and_result(api: Api) -> None:
    machine = await api.new_machine()
    for code in ("a = 3", "print(a)", "a"):
        await api.client.post(f"/v1/machine/{machine}/run", json={"code": code})

    page = (await api.client.get(f"/v1/machine/{machine}/exec", params={"limit": 2})).json()
    older = (await api.client.get(f"/v1/machine/{machine}/exec", params={"cursor": page["next_cursor"]})).json()
    one = (await api.client.get(f"/v1/machine/{machine}/exec/1")).json()

    listed = [item["code"] for item in page["instructions"] + older["instructions"]]
    assert listed == ["a", "print(a)", "a = 3"]
    assert (one["state"], one["replayed"], one["events"][0]["text"]) == ("finished", False, "3\n")


async def test_a_repeat_with_the_same_key_joins_the_same_work(api: Api) -> None:
    machine = await api.new_machine()
    request = {"json": {"code": "n = globals().get('n', 0) + 1; print(n)"}, "headers": {"Idempotency-Key": "k"}}

    answers = [(await api.client.post(f"/v1/machine/{machine}/run", **request)).json() for _ in range(2)]  # type: ignore[arg-type]
    other = await api.client.post(
        f"/v1/machine/{machine}/run", json={"code": "other"}, headers={"Idempotency-Key": "k"}
    )

    assert answers[0]["events"] == answers[1]["events"] == [{"type": "stdout", "id": "1.2", "text": "1\n"}]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("path", ["/v1/machine/new", "/v1/run"])
async def test_a_repeated_creation_makes_one_machine(api: Api, path: str) -> None:
    body: dict[str, Any] = {"code": "1"} if path == "/v1/run" else {}
    for _ in range(2):
        await api.client.post(path, json=body, headers={"Idempotency-Key": "k"})

    assert len((await api.client.get("/v1/machine/list")).json()["machines"]) == 1


async def test_a_repeated_interrupt_interrupts_once(live: Api) -> None:
    machine = await live.new_machine()
    path = f"/v1/machine/{machine}/interrupt"
    await live.execute(machine, "hang()")
    while (await live.client.get(f"/v1/machine/{machine}/exec/0")).json()["state"] != "running":
        pass
    first = await live.client.post(path, headers={"Idempotency-Key": "k"})
    await live.client.get(f"/v1/machine/{machine}/exec/0/result")
    await live.execute(machine, "hang()")
    second = await live.client.post(path, headers={"Idempotency-Key": "k"})

    assert first.json() == second.json() == {"interrupted": True, "instruction_seq": 0}
    assert (await live.client.get(f"/v1/machine/{machine}/exec/1")).json()["result"] is None


async def test_what_still_waits_is_interrupted_as_soon_as_it_begins(live: Api) -> None:
    machine = await live.new_machine()
    path = f"/v1/machine/{machine}"
    for code in ("hang()", "hang()", "hang()", "5"):
        await live.client.post(f"{path}/exec", json={"instruction": {"code": code}, "queue": True})
    for seq in (2, 1, 0):
        answer = await live.client.post(f"{path}/interrupt", json={"seq": seq})
        assert answer.json() == {"interrupted": True, "instruction_seq": seq}
    results = [(await live.client.get(f"{path}/exec/{seq}/result")).json()["result"] for seq in range(4)]
    assert [result.get("error") for result in results] == [*["KeyboardInterrupt"] * 3, None]
    assert results[3]["value"] == "5"


async def test_nothing_is_interrupted_that_is_finished_unknown_or_a_command(live: Api) -> None:
    machine = await live.new_machine()
    path = f"/v1/machine/{machine}"
    await live.client.post(f"{path}/run", json={"code": "5"})
    command = (await live.client.post(f"{path}/commands", json={"command": "hang", "background": True})).json()["seq"]
    for seq in (0, command, command + 1):
        answer = await live.client.post(f"{path}/interrupt", json={"seq": seq})
        assert answer.json() == {"interrupted": False, "instruction_seq": None}


async def test_a_refusal_is_not_remembered(live: Api) -> None:
    machine = await live.new_machine()
    request: dict[str, Any] = {"json": {"code": "5"}, "headers": {"Idempotency-Key": "k"}}
    await live.execute(machine, "hang()")
    refused = await live.client.post(f"/v1/machine/{machine}/run", **request)
    while not (await live.client.post(f"/v1/machine/{machine}/interrupt")).json()["interrupted"]:
        pass
    await live.client.get(f"/v1/machine/{machine}/exec/0/result")
    accepted = await live.client.post(f"/v1/machine/{machine}/run", **request)

    assert refused.status_code == 409
    assert accepted.json()["result"]["value"] == "5"


async def test_notices_wait_for_a_client_that_is_there(live: Api) -> None:
    machine = await live.new_machine()
    await live.recover(machine)
    assert live.server is not None
    connections = live.server.server_state.connections
    async with httpx2.AsyncClient(base_url=live.client.base_url, headers=AUTHORIZATION) as leaving:
        asking = asyncio.create_task(leaving.post(f"/v1/machine/{machine}/run", json={"code": "hang()"}))
        seq = 2
        while (await live.client.get(f"/v1/machine/{machine}/exec/{seq}")).json().get("state") != "running":
            pass
        asking.cancel()
    while len(connections) > 1:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.01)
    await live.client.post(f"/v1/machine/{machine}/interrupt", json={"seq": seq})
    await live.client.get(f"/v1/machine/{machine}/exec/{seq}/result")

    answer = await live.client.post(f"/v1/machine/{machine}/run", json={"code": "1"})
    assert answer.json()["notices"]


async def test_notices_come_with_one_answer_and_stay_in_the_detail(api: Api) -> None:
    machine = await api.new_machine()
    await api.recover(machine)

    answers = [(await api.client.post(f"/v1/machine/{machine}/run", json={"code": "1"})).json() for _ in range(2)]
    detail = (await api.client.get(f"/v1/machine/{machine}")).json()

    assert answers[0]["notices"]
    assert answers[1]["notices"] == []
    assert detail["notices"] == answers[0]["notices"]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_a_call_can_leave_the_notices_to_a_later_answer(api: Api, kind: str) -> None:
    machine = await api.new_machine()
    await api.recover(machine)

    def told(answer: httpx2.Response) -> list[str]:
        if kind == "application/json":
            return [notice["code"] for notice in answer.json()["notices"]]
        events = [json.loads(line) for line in answer.text.splitlines()]
        return [event["code"] for event in events if event["type"] == "notice"]

    for path, body in (("run", {"code": "1"}), ("commands", {"command": "true"})):
        for _ in range(2):
            left = await api.client.post(
                f"/v1/machine/{machine}/{path}", json={**body, "notices": False}, headers={"Accept": kind}
            )
            assert (left.status_code, told(left)) == (200, [])
    taken = await api.client.post(f"/v1/machine/{machine}/run", json={"code": "1"}, headers={"Accept": kind})
    assert len(told(taken)) == 1


async def test_who_follows_an_instruction_is_told_the_notices_if_he_asks(api: Api) -> None:
    machine = await api.new_machine()
    await api.recover(machine)
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "1", "notices": False})

    streams = [
        (await api.client.get(f"/v1/machine/{machine}/exec/0/events", params=params)).text.splitlines()
        for params in ({}, {"notices": True}, {"notices": True})
    ]

    kinds = [[json.loads(line)["type"] for line in stream] for stream in streams]
    assert kinds == [["result"], ["notice", "result"], ["result"]]


async def test_a_deleted_machine_is_gone(api: Api) -> None:
    machine = await api.new_machine()
    await api.client.post(f"/v1/machine/{machine}/run", json={"code": "1"})

    deleted = await api.client.delete(f"/v1/machine/{machine}")

    assert deleted.json() == {"machine_name": machine}
    assert (await api.client.get(f"/v1/machine/{machine}")).status_code == 404
    assert (await api.client.delete(f"/v1/machine/{machine}")).status_code == 404


async def test_idle_seconds_are_the_servers_unless_the_machine_has_its_own(api: Api) -> None:
    told = []
    for body in ({}, {"idle_seconds": 5}, {"idle_seconds": None}):
        machine = (await api.client.post("/v1/machine/new", json=body)).json()["machine_name"]
        told.append((await api.client.get(f"/v1/machine/{machine}")).json()["idle_seconds"])

    assert told == [60, 5, None]


async def test_a_stopping_server_refuses_work_and_ends_waits(live: Api) -> None:
    machine = await live.new_machine()
    await live.execute(machine, "hang()")
    poll = asyncio.create_task(live.client.get(f"/v1/machine/{machine}/exec/0/result"))
    live.services.stopping.draining = True

    refused = await live.client.post("/v1/run", json={"code": "1"})
    not_ready = await live.client.get("/readyz")
    live.services.end_waits()
    ended = await poll

    for answer in (refused, not_ready, ended):
        assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
    assert (await live.client.get("/healthz")).json() == {"status": "ok"}


async def test_an_instruction_goes_on_when_its_client_goes_away(live: Api) -> None:
    machine = await live.new_machine()
    with pytest.raises(httpx2.ReadTimeout):
        await live.client.post(f"/v1/machine/{machine}/run", json={"code": "hang()"}, timeout=0.5)
    state = (await live.client.get(f"/v1/machine/{machine}/exec/0")).json()["state"]

    assert state in ("waiting", "running")


def _sse(text: str) -> list[dict[str, str]]:
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
