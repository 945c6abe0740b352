"""What is asked of the server, as values: the pure part of both clients. Paths and bodies are written here only."""

from __future__ import annotations

import enum
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

ANSWER_SECONDS = 30.0
"""How long an answer may take that does not wait for code."""
EXPORT_SECONDS = 900.0
"""How long it may take until an export begins, and between two pieces of it."""
TRANSITION_SECONDS = 120.0
"""How long a save or a wake may take before it is asked after again."""
DEFAULT_TIMEOUT_SECONDS = 15.0
"""The server's default time-out of an instruction, for the patience with which its answer is awaited."""
LONGEST_ANSWER_SECONDS = 24 * 3600.0
"""An answer that code may take longer for is asked for again."""
GRACE_SECONDS = 30.0
"""Waking, the steps that end an instruction, and the way back."""
PAGE_LENGTH = 1000
"""The longest page of a list that the server gives."""
QUIET_STREAM_SECONDS = 90.0
"""A stream that says nothing for so long is opened again; the server keeps it alive far more often."""


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET
"""An argument that was not given, where None means something."""


@dataclass(frozen=True)
class Call:
    """One request. Asked again after a failure it has the same idempotency key, so it takes effect once."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str | int] = field(default_factory=dict)
    answer_seconds: float = ANSWER_SECONDS
    idempotency_key: str | None = None
    patient: bool = False
    """Whether an answer that takes too long only means that the work goes on: it is joined again, without limit."""
    streamed: bool = False
    repeatable: bool = True
    """Whether it may be sent again when nobody knows what became of it."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of this call alone."""
        headers = {"Accept": "application/x-ndjson" if self.streamed else "application/json"}
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers


def _get(path: str, query: Mapping[str, str | int | None] | None = None, **options: Any) -> Call:
    present = {name: value for name, value in (query or {}).items() if value is not None}
    return Call("GET", path, query=present, **options)


def _post(path: str, body: Mapping[str, Any], **options: Any) -> Call:
    present = {name: value for name, value in body.items() if value is not None}
    return Call("POST", path, body=present, idempotency_key=uuid.uuid4().hex, **options)


def _machine(name: str, rest: str = "") -> str:
    return f"/v1/machine/{quote(name, safe='')}{rest}"


def whoami() -> Call:
    """Whose key this is."""
    return _get("/v1/whoami")


def keys() -> Call:
    """The account's API keys."""
    return _get("/v1/keys")


def new_key(name: str) -> Call:
    """Another API key. Its secret is shown once, so that a lost answer cannot be had again, and another key is made."""
    return Call("POST", "/v1/keys", body={"name": name}, repeatable=False)


def revoke_key(key: str) -> Call:
    """Let a key in no longer."""
    return Call("DELETE", f"/v1/keys/{quote(key, safe='')}")


def new_machine(
    tags: Mapping[str, str] | None,
    memory_mb: int | None,
    idle_seconds: float | Unset | None,
    settings: Mapping[str, str | float | None],
) -> Call:
    """A new machine. `idle_seconds` None is said to the server: it means never."""
    body = {"tags": dict(tags) if tags else None, "memory_mb": memory_mb, **settings}
    call = _post("/v1/machine/new", body)
    if idle_seconds is not UNSET:
        call = replace(call, body={**(call.body or {}), "idle_seconds": idle_seconds})
    return call


def is_alias(name: str) -> bool:
    """Whether this is a name of the account's own: a machine's is 16 letters and digits."""
    return not (len(name) == 16 and name.isascii() and name.isalnum())


def get_or_create(alias: str, new_machine: Call | None = None) -> Call:
    """The machine that the account calls so; if there is none, one as `new_machine` would make it."""
    return Call("PUT", _machine(alias), body={} if new_machine is None else new_machine.body)


def update(
    machine: str,
    tags: Mapping[str, str | None] | None,
    memory_mb: int | None,
    idle_seconds: float | Unset | None,
    settings: Mapping[str, str | float | None],
    alias: str | Unset | None,
) -> Call:
    """Other settings and tags; what is absent stays."""
    body = {"tags": dict(tags) if tags else None, "memory_mb": memory_mb, **settings}
    present: dict[str, Any] = {name: value for name, value in body.items() if value is not None}
    if idle_seconds is not UNSET:
        present["idle_seconds"] = idle_seconds
    if alias is not UNSET:
        present["alias"] = alias
    return Call("PATCH", _machine(machine), body=present)


def list_machines(tags: Mapping[str, str] | None, limit: int | None, cursor: str | None) -> Call:
    """A page of the account's machines, newest first."""
    page = {"limit": PAGE_LENGTH if limit is None else min(limit, PAGE_LENGTH), "cursor": cursor}
    query = {name: value for name, value in page.items() if value is not None}
    return _post("/v1/machine/list", {"tags": dict(tags) if tags else None}, query=query)


def asked_timeout(seconds: float | None) -> float | str | None:
    """How the time-out of code is asked for. Infinite: the longest that the server allows, which it knows itself."""
    return "longest" if seconds == math.inf else seconds


def answer_seconds(timeout_seconds: float | None, default_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> float:
    """How long the answer may take of a call that waits for code with this time-out."""
    running_seconds = default_seconds if timeout_seconds is None else timeout_seconds
    return min(running_seconds + GRACE_SECONDS, LONGEST_ANSWER_SECONDS)


def run(
    machine: str | None,
    code: str,
    *,
    timeout_seconds: float | None = None,
    queue: bool = False,
    interrupt: bool = False,
    timings: bool = False,
    streamed: bool = False,
    idempotency_key: str | None = None,
    stdin: str | None = None,
    stdin_open: bool = False,
) -> Call:
    """Run code on a machine, or on a new one (None)."""
    body: dict[str, Any] = {"code": code, "timeout_seconds": asked_timeout(timeout_seconds)}
    if queue:
        body["queue"] = True
    if interrupt:
        body["interrupt"] = True
    if timings:
        body["timings"] = True
    body |= _stdin(stdin, stdin_open=stdin_open)
    call = _post(
        "/v1/run" if machine is None else _machine(machine, "/run"),
        body,
        answer_seconds=QUIET_STREAM_SECONDS if streamed else answer_seconds(timeout_seconds),
        patient=True,
        streamed=streamed,
    )
    return call if idempotency_key is None else replace(call, idempotency_key=idempotency_key)


def start(
    machine: str,
    code: str,
    *,
    timeout_seconds: float | None = None,
    queue: bool = False,
    interrupt: bool = False,
    idempotency_key: str | None = None,
    stdin: str | None = None,
    stdin_open: bool = False,
) -> Call:
    """Have code run on a machine, and do not wait for it."""
    instruction = {"code": code, **_stdin(stdin, stdin_open=stdin_open)}
    if timeout_seconds is not None:
        instruction["timeout_seconds"] = asked_timeout(timeout_seconds)
    body: dict[str, Any] = {"instruction": instruction}
    if queue:
        body["queue"] = True
    if interrupt:
        body["interrupt"] = True
    call = _post(_machine(machine, "/exec"), body)
    return call if idempotency_key is None else replace(call, idempotency_key=idempotency_key)


def _stdin(stdin: str | None, *, stdin_open: bool) -> dict[str, Any]:
    given: dict[str, Any] = {} if stdin is None else {"stdin": stdin}
    return {**given, "stdin_open": True} if stdin_open else given


def send_stdin(machine: str, seq: int, body: Mapping[str, Any]) -> Call:
    """More for an instruction to read, or the end of it."""
    return _post(_machine(machine, f"/exec/{seq}/stdin"), body)


def events(machine: str, seq: int, after: str | None) -> Call:
    """The events of an instruction from the beginning, or after the one with this id."""
    return _get(
        _machine(machine, f"/exec/{seq}/events"),
        {"after": after},
        answer_seconds=QUIET_STREAM_SECONDS,
        patient=True,
        streamed=True,
    )


def detail(machine: str) -> Call:
    """All that the server tells of a machine."""
    return _get(_machine(machine))


def history(machine: str, limit: int | None, cursor: str | None) -> Call:
    """A page of a machine's instructions."""
    page_length = None if limit is None else min(limit, PAGE_LENGTH)
    return _get(_machine(machine, "/exec"), {"limit": page_length, "cursor": cursor})


def instruction(machine: str, seq: int, *, events: bool = True) -> Call:
    """One instruction of a machine, with what it said or without."""
    return _get(_machine(machine, f"/exec/{seq}"), None if events else {"events": "false"})


def complete(machine: str, code: str, cursor: int | None) -> Call:
    """What could follow at a cursor. It changes nothing, so that it needs no idempotency key."""
    body: dict[str, Any] = {"code": code} if cursor is None else {"code": code, "cursor": cursor}
    return Call("POST", _machine(machine, "/complete"), body=body)


def interrupt(machine: str, seq: int | None) -> Call:
    """KeyboardInterrupt in what runs, or only in this instruction."""
    return _post(_machine(machine, "/interrupt"), {"seq": seq})


def transition(machine: str, verb: str) -> Call:
    """`sleep`, `wake` or `sync`."""
    return _post(_machine(machine, f"/{verb}"), {}, answer_seconds=TRANSITION_SECONDS, patient=True)


def snapshots(machine: str) -> Call:
    """A machine's snapshots, newest first."""
    return _get(_machine(machine, "/snapshots"))


def pin(machine: str, generation: int, *, pinned: bool) -> Call:
    """Keep a snapshot for ever, or no longer."""
    return Call("PUT" if pinned else "DELETE", _machine(machine, f"/snapshots/{generation}/pin"))


def rollback(machine: str, generation: int | None, seq: int | None, *, interrupt: bool) -> Call:
    """Go on from an earlier point."""
    body: dict[str, Any] = {"to": _point(generation, seq)}
    if interrupt:
        body["interrupt"] = True
    return _post(_machine(machine, "/rollback"), body, answer_seconds=TRANSITION_SECONDS, patient=True)


def fork(machine: str, generation: int | None, seq: int | None, count: int, tags: Mapping[str, str] | None) -> Call:
    """New machines from a state of this one."""
    body = {
        "at": _point(generation, seq) or None,
        "count": count,
        "tags": None if tags is None else dict(tags),
    }
    return _post(_machine(machine, "/fork"), body, answer_seconds=TRANSITION_SECONDS, patient=True)


def recover(machine: str, how: str, seq: int | None, generation: int | None) -> Call:
    """A way out for a parked machine."""
    body = {"how": how, "seq": seq, "generation": generation}
    return _post(_machine(machine, "/recover"), body, answer_seconds=TRANSITION_SECONDS, patient=True)


def export(machine: str) -> Call:
    """All that can be had of a parked machine. It changes nothing, so that it needs no idempotency key."""
    return Call("POST", _machine(machine, "/recover"), body={"how": "export"}, answer_seconds=EXPORT_SECONDS)


def crash(machine: str) -> Call:
    """SIGKILL of a machine's process."""
    return _post(_machine(machine, "/debug/crash"), {})


def _point(generation: int | None, seq: int | None) -> dict[str, int]:
    names = {"generation": generation, "seq": seq}
    return {name: value for name, value in names.items() if value is not None}


def delete(machine: str) -> Call:
    """Delete a machine for good."""
    return Call("DELETE", _machine(machine))
