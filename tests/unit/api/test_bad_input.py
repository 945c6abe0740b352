"""Bad input: each gets a refusal that names what is wrong, and never a 500."""

from __future__ import annotations

import json

import pytest
from tests.support.api import Api

from torpor_api import errors
from torpor_api.bodies import BODY_LIMIT_BYTES

INSTRUCTION = "instruction"


def exec_body(code: str = '"1"', timeout: str = "15") -> bytes:
    return f'{{"instruction": {{"code": {code}, "timeout_seconds": {timeout}}}}}'.encode()


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("exec", b"{", "body"),
        ("exec", b"\xff\xfe", "body"),
        ("exec", b"[" * 100_000, "body"),
        ("exec", b"1" * 10_000, "body"),
        ("exec", b'{"instruction": NaN}', "body"),
        ("exec", b"[]", "body"),
        ("exec", b"", "instruction"),
        ("exec", b'{"instruction": 5}', "instruction"),
        ("exec", b'{"instruction": {}}', "instruction.code"),
        ("exec", exec_body("5"), "instruction.code"),
        ("exec", exec_body('"a\\u0000b"'), "instruction.code"),
        ("exec", exec_body('"\\ud800"'), "instruction.code"),
        ("exec", exec_body(json.dumps("x" * (1024 * 1024 + 1))), "instruction.code"),
        ("exec", exec_body(timeout="0.5"), "instruction.timeout_seconds"),
        ("exec", exec_body(timeout="-1"), "instruction.timeout_seconds"),
        ("exec", exec_body(timeout="1e999"), "instruction.timeout_seconds"),
        ("exec", exec_body(timeout="3601"), "instruction.timeout_seconds"),
        ("exec", exec_body(timeout='"15"'), "instruction.timeout_seconds"),
        ("exec", exec_body(timeout="true"), "instruction.timeout_seconds"),
        ("exec", exec_body(timeout='"shortest"'), "instruction.timeout_seconds"),
        ("exec", b'{"instruction": {"code": "1"}, "interrupt": 1}', "interrupt"),
        ("run", b'{"code": null}', "code"),
        ("run", b'{"code": "1", "queue": "yes"}', "queue"),
        ("run", b'{"code": "1", "stdin": 1}', "stdin"),
        ("run", b'{"code": "1", "standard_input": "x"}', "standard_input"),
        ("run", b'{"code": "1", "timeout_seconds": 1e9}', "timeout_seconds"),
        ("interrupt", b'{"seq": -1}', "seq"),
        ("interrupt", b'{"seq": 99999999999999999999999}', "seq"),
        ("sleep", b'{"now": true}', "now"),
    ],
)
async def test_a_bad_body_is_422_and_names_the_field(api: Api, path: str, body: bytes, field: str) -> None:
    machine = await api.new_machine()

    answer = await api.client.post(f"/v1/machine/{machine}/{path}", content=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["message"].split(":")[0] == field
    assert set(answer.json()) == {"code", "id", "message"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"tags": []}', "tags"),
        (b'{"tags": {"a": 1}}', "tags.a"),
        (b'{"tags": {"a": "\\u0000"}}', "tags.a"),
        (b'{"tags": {"a": "\\udc80"}}', "tags.a"),
        (b'{"tags": {"": "x"}}', "tags..[key]"),
        (json.dumps({"tags": {"a": "x" * 513}}).encode(), "tags.a"),
        (json.dumps({"tags": {str(n): "x" for n in range(65)}}).encode(), "tags"),
        (b'{"template": "cobol"}', "template"),
        (b'{"memory_mb": 255}', "memory_mb"),
        (b'{"memory_mb": 2147483647}', "memory_mb"),
        (b'{"memory_mb": 99999999999999999999}', "memory_mb"),
        (b'{"memory_mb": 512.5}', "memory_mb"),
        (b'{"memory_mb": true}', "memory_mb"),
        (b'{"idle_seconds": 0}', "idle_seconds"),
        (b'{"idle_seconds": 1e30}', "idle_seconds"),
    ],
)
async def test_a_machine_is_refused_with_the_field_named(api: Api, body: bytes, field: str) -> None:
    answer = await api.client.post("/v1/machine/new", content=body)

    assert answer.status_code == 422
    assert answer.json()["message"].split(":")[0] == field
    assert (await api.client.get("/v1/machine/list")).json()["machines"] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"command": "\\udc80"}', "command: 'utf-8' codec can't encode"),
        (b'{"command": 5}', "command: input should be a valid string."),
        (b'{"command": "x", "env": {"A": 5}}', "env.A: input should be a valid string."),
    ],
)
async def test_a_refusal_names_fields_and_nothing_of_how_they_are_checked(api: Api, body: bytes, message: str) -> None:
    machine = await api.new_machine()
    answer = await api.client.post(f"/v1/machine/{machine}/commands", content=body)
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(message)
    assert "[" not in answer.json()["message"]


async def test_a_tag_with_a_null_byte_in_its_name_is_refused(api: Api) -> None:
    answer = await api.client.post("/v1/machine/new", json={"tags": {"a\0b": "x"}})

    assert answer.status_code == 422
    assert "\0" not in answer.json()["message"]


async def test_a_large_body_is_413(api: Api) -> None:
    async def endless() -> object:
        for _ in range(BODY_LIMIT_BYTES // 65536 + 1):
            yield b" " * 65536

    declared = await api.client.post("/v1/run", content=b" " * (BODY_LIMIT_BYTES + 1))
    streamed = await api.client.post("/v1/machine/new", content=endless())  # type: ignore[arg-type]

    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/machine/%00", 404, "machine_not_found"),
        ("GET", "/v1/machine/..%2f", 404, "not_found"),
        ("PUT", "/v1/whoami", 405, "method_not_allowed"),
        ("GET", "/v1/run", 405, "method_not_allowed"),
        ("GET", "/v1/whoami/", 404, "not_found"),
    ],
)
async def test_an_address_or_a_method_that_is_not_there(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    answer = await api.client.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("seq", ["1", "-1", "99999999999999999999", str(2**62)])
async def test_an_unknown_seq_is_404(api: Api, seq: str) -> None:
    machine = await api.new_machine()
    await api.execute(machine, "1")

    for rest in ("", "/result", "/stream-result", "/events"):
        answer = await api.client.get(f"/v1/machine/{machine}/exec/{seq}{rest}")
        assert (answer.status_code, answer.json()["code"]) == (404, "instruction_not_found")


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
async def test_a_bad_idempotency_key_is_422(api: Api, key: str) -> None:
    answer = await api.client.post("/v1/machine/new", json={}, headers={"Idempotency-Key": key})

    assert answer.status_code == 422
    assert answer.json()["message"].startswith("Idempotency-Key:")


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    codes = [kind.code for kind in kinds if kind is not errors.TorporError]

    assert len(codes) == len(set(codes))


async def test_what_nobody_foresaw_is_500_with_an_id_and_no_details(api: Api) -> None:
    machine = await api.new_machine()
    await api.services.ledger.close()

    for method, path, body in (
        ("GET", f"/v1/machine/{machine}", None),
        ("POST", f"/v1/machine/{machine}/run", {"code": "1"}),
    ):
        answer = await api.client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert set(answer.json()) == {"code", "id", "message"}
