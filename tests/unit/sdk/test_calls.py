"""What is asked of the server, call by call: each takes effect once however often it is sent, and waits long enough."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

import torpor
from torpor import _calls, _command_calls, _file_calls, _package_calls
from torpor._calls import Call
from torpor._errors import api_error
from torpor._http import request
from torpor._retry import Attempts, Contact

HARMLESS = {"export", "complete"}
"""POSTs that change nothing."""
ONCE = {"new_key"}
"""POSTs that are not sent again."""
SAMPLES: dict[str, Any] = {
    **{"code": "1", "machine": "m" * 16, "seq": 3, "generation": 3, "pinned": True, "verb": "sync"},
    "idempotency_key": None,
}


def functions() -> Iterator[tuple[str, Callable[..., Call]]]:
    """What makes a call, by its name."""
    for module in (_calls, _command_calls, _file_calls, _package_calls):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            public = function.__module__ == module.__name__ and not name.startswith("_")
            if public and inspect.signature(function).return_annotation == "Call":
                yield name, function


def made(function: Callable[..., Call], **given: object) -> Call:
    """The call of a function, with samples for what it needs."""
    needed = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    return function(**{each.name: SAMPLES.get(each.name, sample(each)) for each in needed} | given)


def every_call() -> Iterator[tuple[str, Call]]:
    for name, function in functions():
        yield name, made(function)


def sample(parameter: inspect.Parameter) -> object:
    annotation = str(parameter.annotation)
    if annotation.startswith("Mapping"):
        return {}
    return {"bool": False, "int": 1, "float": 1.0, "str": "x"}.get(annotation.split(" | ", maxsplit=1)[0])


CALLS = dict(every_call())
KEYED = {name: each for name, each in functions() if "idempotency_key" in inspect.signature(each).parameters}


def test_every_call_is_looked_at() -> None:
    assert len(CALLS) == len([*functions()]) > 30
    assert {"run", "start", "fork", "new_machine", "interrupt", "rollback", "recover", "transition"} <= set(CALLS)
    assert {"execute", "feed", "signal", "resize", "install", "write", "unpack", "remove", "read"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_post_has_a_key_of_its_own_or_changes_nothing_or_is_not_sent_again(name: str) -> None:
    call = CALLS[name]
    if call.method != "POST" or name in HARMLESS:
        assert call.repeatable
    elif name in ONCE:
        assert not call.repeatable
    else:
        assert call.idempotency_key is not None
        assert call.idempotency_key != dict(every_call())[name].idempotency_key


def test_what_users_ask_for_again_takes_a_key_of_theirs() -> None:
    assert set(KEYED) == {"run", "start", "new_machine", "execute", "install"}


@pytest.mark.parametrize("name", KEYED)
def test_a_key_of_the_users_is_the_call_s(name: str) -> None:
    assert made(KEYED[name], idempotency_key="mine").headers["Idempotency-Key"] == "mine"


@pytest.mark.parametrize(
    ("timeout_seconds", "read_seconds"), [(None, 45), (1, 31), (15, 45), (500, 530), (3600, 3630), (math.inf, 86400)]
)
def test_the_time_out_of_a_request_follows_from_that_of_the_code(
    timeout_seconds: float | None, read_seconds: float
) -> None:
    call = _calls.run("m" * 16, "1", timeout_seconds=timeout_seconds)
    with httpx2.Client(base_url="http://elsewhere") as client:
        timeouts = request(client, call).extensions["timeout"]
    assert timeouts == {"connect": 10, "read": read_seconds, "write": read_seconds, "pool": read_seconds}


def attempts(call: Call) -> Attempts:
    return Attempts(call, torpor.RetryPolicy(), Contact(made=True))


LOST = httpx2.RemoteProtocolError("Server disconnected.")


def test_what_cannot_be_repeated_is_not_repeated_once_it_may_be_done() -> None:
    with pytest.raises(torpor.ServerUnreachable, match="erver disconnected") as raised:
        attempts(_calls.new_key("x")).failed(LOST)
    assert "may have been done" in str(raised.value.hint)
    with pytest.raises(torpor.UnknownApiError):
        attempts(_calls.new_key("x")).answered(504, None, None)


def test_what_cannot_be_repeated_is_repeated_while_it_was_never_sent() -> None:
    trying = attempts(_calls.new_key("x"))
    assert trying.failed(httpx2.ConnectError("Refused.")) > 0
    assert trying.answered(503, {"code": "shutting_down", "message": "Stopping."}, None)
    assert trying.answered(200, None, None) is None


@pytest.mark.parametrize(("call", "code"), [("delete", "machine_not_found"), ("revoke_key", "key_not_found")])
def test_a_delete_that_finds_nothing_is_a_success_only_if_an_earlier_one_may_have_been_done(
    call: str, code: str
) -> None:
    nothing = {"code": code, "message": "Not there."}
    lost = attempts(CALLS[call])
    lost.failed(LOST)
    assert lost.answered(404, nothing, None) is None
    refused = attempts(CALLS[call])
    refused.answered(503, {"code": "shutting_down", "message": "Stopping."}, None)
    with pytest.raises(type(api_error(404, nothing))):
        refused.answered(404, nothing, None)


def test_a_request_without_an_answer_is_repeated_with_the_same_key() -> None:
    keys = []

    def lose(asked: httpx2.Request) -> httpx2.Response:
        keys.append(asked.headers["Idempotency-Key"])
        if len(keys) < 4:
            raise httpx2.ReadError("Gone.")
        return httpx2.Response(200, json={"machine_name": "m" * 16})

    policy = torpor.RetryPolicy(first_delay_seconds=0.001)
    client = torpor.Client(url="http://elsewhere", api_key="a.b", transport=httpx2.MockTransport(lose), retry=policy)
    assert client.new_machine().name == "m" * 16
    assert len(keys) == 4
    assert len(set(keys)) == 1
