"""A real HTTP server on loopback that speaks Torpor's API and only pretends to run code: what each code does is told.

Its connections can be cut, and its answers refused, at exactly the place a test asks for.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API_KEY = "acme.s3cret-s3cret"
WAIT_SECONDS = 60

Json = dict[str, Any]


@dataclass(frozen=True)
class Refuse:
    """Answer the next request with an error, and do nothing."""

    status: int
    code: str
    message: str = "Not now."
    retry_after: str | None = None


@dataclass(frozen=True)
class Cut:
    """Do what the next request asks, but cut the connection after so many lines of the answer's body.

    None: before the status line, so that the client cannot know whether anything was done.
    """

    after_lines: int | None = None


@dataclass
class Script:
    """What a piece of code does: events, then a result. While `blocks`, it waits for an interrupt before that.

    One that is `stubborn` does not heed interrupts, and waits for the end of the server. At each event that is an
    `input_request` it waits for an answer, or an interrupt.
    """

    events: list[Json] = field(default_factory=list)
    result: Json = field(default_factory=lambda: {"value": None, "runtime_ms": 1})
    blocks: bool = False
    stubborn: bool = False


@dataclass
class Ran:
    """An instruction of a machine."""

    seq: int
    code: str
    script: Script
    interrupted: threading.Event = field(default_factory=threading.Event)
    given: list[Json] = field(default_factory=list)
    """What was sent for it to read."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def give(self, body: Json) -> None:
        """Answer its question."""
        with self.changed:
            self.given.append(body)
            self.changed.notify_all()

    def interrupt(self) -> None:
        """End it, if it waits for that or for an answer."""
        with self.changed:
            self.interrupted.set()
            self.changed.notify_all()

    def wait_for(self, answers: int) -> None:
        """Wait until it has so many answers, or is interrupted."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.given) >= answers or self.interrupted.is_set(), WAIT_SECONDS)


class StubServer:
    """The server's state, which tests look at and change."""

    def __init__(self) -> None:
        self.machines: dict[str, list[Ran]] = {}
        self.scripts: dict[str, Script] = {}
        self.completions: dict[str, tuple[list[str], int, int] | None] = {}
        """By code: matches, start and end; None where the server knows no completion."""
        self.faults: deque[Refuse | Cut] = deque()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[Json] = []
        self.on_block: Callable[[], None] = lambda: None
        self.url = ""
        self._answers: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    @property
    def ran(self) -> list[str]:
        """The code of every instruction that was executed, on any machine."""
        return [instruction.code for machine in self.machines.values() for instruction in machine]

    def says(self, code: str, *events: Json, **result: Any) -> None:
        """Tell what a piece of code does."""
        self.scripts[code] = Script(list(events), {"runtime_ms": 1, **(result or {"value": None})})

    def once(self, key: str | None, path: str, work: Callable[[], Any]) -> Any:
        """Do work once per idempotency key and path."""
        with self._lock:
            if key is None:
                return work()
            if (path, key) not in self._answers:
                self._answers[path, key] = work()
            return self._answers[path, key]

    def new_machine(self) -> str:
        """Add a machine."""
        name = f"machine{len(self.machines):09d}"
        self.machines[name] = []
        return name

    def execute(self, name: str, code: str) -> Ran:
        """Add an instruction."""
        log = self.machines[name]
        log.append(Ran(len(log), code, self.scripts.get(code, Script())))
        return log[-1]

    def events(self, ran: Ran, after: str | None) -> Iterator[Json]:
        """The events of an instruction, numbered as the real server numbers them."""
        if ran.script.blocks and not ran.interrupted.is_set():
            self.on_block()
            if not ran.interrupted.wait(WAIT_SECONDS):
                return
        offset = questions = 0
        for event in ran.script.events:
            offset += len(str(event.get("text", "x")))
            if after is None or offset > int(after.split(".")[1]):
                yield {"id": f"1.{offset}", **event}
            if event["type"] == "input_request":
                questions += 1
                ran.wait_for(questions)
        yield {
            "type": "result",
            "id": f"1.{offset}.result",
            "instruction_seq": ran.seq,
            "result": ran.script.result,
            "timings": {"runtime_ms": 1},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: StubServer

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        # A client that leaves in the middle of a stream is part of what is tested.
        with suppress(ConnectionError):
            super().handle()

    def _handle(self) -> None:
        stub = self.stub
        url = urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text) if text else {}
        fault = stub.faults.popleft() if stub.faults else None
        stub.requests.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        stub.bodies.append(body)
        if isinstance(fault, Refuse):
            extra = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            self._error(fault.status, fault.code, fault.message, extra)
        elif self.headers.get("Authorization") != f"Bearer {API_KEY}":
            self._error(401, "unauthorized", "The API key is missing or wrong.")
        else:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            try:
                self._route(url.path, query, body, fault)
            except KeyError:
                self._error(404, "machine_not_found", "No machine of this name belongs to the account.")

    def _route(self, path: str, query: dict[str, str], body: Json, cut: Cut | None) -> None:
        stub = self.stub
        key = self.headers.get("Idempotency-Key")
        if path == "/v1/whoami":
            self._json({"account": "acme"}, cut)
        elif path == "/v1/machine/new":
            self._json({"machine_name": stub.once(key, path, stub.new_machine)}, cut)
        elif path == "/v1/machine/list":
            self._json({"machines": [self._machine(name) for name in reversed(stub.machines)]}, cut)
        elif path == "/v1/run":
            name = stub.once(key, "machine", stub.new_machine)
            self._run(name, stub.once(key, path, lambda: stub.execute(name, body["code"])), cut)
        else:
            found = re.fullmatch(r"/v1/machine/(\w+)(/.*)?", path)
            if found is None:
                raise KeyError
            self._machine_route(found[1], found[2] or "", query, body, cut)

    def _machine_route(self, name: str, rest: str, query: dict[str, str], body: Json, cut: Cut | None) -> None:
        stub = self.stub
        log = stub.machines[name]
        key = self.headers.get("Idempotency-Key")
        if self.command == "DELETE":
            del stub.machines[name]
            self._json({"machine_name": name}, cut)
        elif self.command == "PATCH":
            known = self._machine(name)
            tags = {tag: value for tag, value in {**known["tags"], **body.get("tags", {})}.items() if value is not None}
            self._json({**known, "notices": [], **body, "tags": tags}, cut)
        elif rest == "/run":
            self._run(name, stub.once(key, self.path, lambda: stub.execute(name, body["code"])), cut)
        elif rest == "/interrupt":
            for ran in log:
                if not ran.script.stubborn:
                    ran.interrupt()
            self._json({"interrupted": True, "instruction_seq": len(log) - 1}, cut)
        elif rest == "/complete" and stub.completions.get(body["code"]) is not None:
            matches, start, end = stub.completions[body["code"]] or ([], 0, 0)
            self._json({"matches": matches, "start": start, "end": end}, cut)
        elif rest == "/complete":
            self._error(404, "not_found", "There is nothing here.")
        elif rest == "/exec":
            limit, start = int(query.get("limit", 100)), int(query.get("cursor", 0))
            page = [self._instruction(ran) for ran in log[::-1]][start:][:limit]
            more = {"next_cursor": str(start + limit)} if start + limit < len(log) else {}
            self._json({"instructions": page, **more}, cut)
        elif found := re.fullmatch(r"/exec/(\d+)(/events|/stdin)?", rest):
            ran = log[int(found[1])]
            if found[2] == "/stdin":
                stub.once(key, self.path, lambda: ran.give(body))
                self._json({"machine": name, "instruction_seq": ran.seq}, cut)
            elif found[2]:
                self._stream(stub.events(ran, query.get("after")), {}, cut)
            else:
                self._json(self._instruction(ran), cut)
        else:
            self._json({**self._machine(name), "notices": []}, cut)

    def _run(self, name: str, ran: Ran, cut: Cut | None) -> None:
        headers = {"Torpor-Machine": name, "Torpor-Instruction-Seq": str(ran.seq)}
        events = self.stub.events(ran, None)
        if self.headers.get("Accept") == "application/x-ndjson":
            self._stream(events, headers, cut)
            return
        *output, last = events
        answer = {"machine": name, "instruction_seq": ran.seq, "result": last["result"]}
        self._json({**answer, "events": output, "notices": [], "timings": {}}, cut)

    def _stream(self, events: Iterator[Json], headers: dict[str, str], cut: Cut | None) -> None:
        if cut is not None and cut.after_lines is None:
            deque(events, maxlen=0)
            self._hang_up()
            return
        self.send_response(200)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        for number, event in enumerate(events):
            if cut is not None and number == cut.after_lines:
                self._hang_up()
                return
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, value: Json, cut: Cut | None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if cut is not None:
            self._hang_up()
            return
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        for name, content in (headers or {}).items():
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(text)

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._json({"code": code, "id": "e1", "message": message, "hint": "A hint."}, None, status, headers)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()

    def _machine(self, name: str) -> Json:
        return {
            "name": name,
            "created_at": "2026-01-02T03:04:05Z",
            "running": False,
            "has_pending_instruction": False,
            "expires_at": None,
            "tags": {"user": "42"},
            "state": "asleep",
            "template": "python",
            "memory_mb": 1024,
            "idle_seconds": 60.0,
            "durability": "interval",
            "recovery": "replay",
            "last_used_at": "2026-01-02T03:04:05Z",
            "generation": 0,
            "stored_bytes": 4096,
            "parked_reason": None,
        }

    def _state(self, ran: Ran) -> Json:
        if ran.script.blocks and not ran.interrupted.is_set():
            return {"state": "running", "result": None, "events": ran.script.events}
        return {"state": "finished", "result": ran.script.result}

    def _instruction(self, ran: Ran) -> Json:
        return {
            "instruction_seq": ran.seq,
            "code": ran.code,
            **self._state(ran),
            "replayed": False,
            "undone": False,
            "accepted_at": "2026-01-02T03:04:05Z",
        }


@contextmanager
def stub_server() -> Iterator[StubServer]:
    """A stub server that runs while this is entered."""
    stub = StubServer()
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="stub server")
    thread.start()
    try:
        yield stub
    finally:
        for machine in stub.machines.values():
            for ran in machine:
                ran.interrupt()
        server.shutdown()
        server.server_close()
        thread.join()
