"""Asks for packages, as the supervisor passes them on."""

import json
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from torpor_worker.guest import frames
from torpor_worker.guest.asks import AT_ONCE, NOBODY, NOT_UNDERSTOOD, Asks
from torpor_worker.guest.frames import FrameType
from torpor_worker.guest.outbox import WINDOW_BYTES, Outbox

PLAIN: dict[str, Any] = {
    "requirements": ["tidy"],
    "constraints": [],
    "installed": {"a": "1"},
    "upgrade": False,
    "prereleases": False,
    "no_dependencies": False,
    "fresh": False,
    "python": "3.13.5",
    "libc": [2, 41],
    "architecture": "x86_64",
}
REQUEST = PLAIN | {"session": 7, "more": [[]]}


class Desk:
    """Asks, what they say to the host, and who asks."""

    def __init__(self) -> None:
        self.out = Outbox()
        self.asks = Asks(self.out)
        self.address = self.asks.listen()
        self.asks.begin_again(host_answers=True)
        self.reader = frames.FrameReader(b"", restarts=False)
        self.reader.go_on_with(False, b"")
        self.connections: list[socket.socket] = []

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(self.address)
        self.connections.append(connection)
        self.turn()
        return connection

    def ask(self, request: Any = REQUEST) -> socket.socket:
        connection = self.connect()
        connection.sendall(json.dumps(request).encode() + b"\n")
        self.turn()
        return connection

    def turn(self, wait_ms: int = 100) -> None:
        poll = select.poll()
        wants = self.asks.wants()
        for fd, events in zip(wants[::2], wants[1::2], strict=True):
            poll.register(fd, events)
        self.asks.serve(dict(poll.poll(wait_ms)), lambda session: 100 + session)

    def said(self) -> list[tuple[int, dict[str, Any]]]:
        pending = b"".join(self.out._pending)
        self.out._pending.clear()
        found = self.reader.feed(pending)
        assert all(frame.type == FrameType.PACKAGES_WANTED for frame in found)
        return [(frame.number, json.loads(frame.body)) for frame in found]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for ask in self.asks._asks.values():
            ask.connection.close()
        assert self.asks._listener is not None
        self.asks._listener.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def heard(connection: socket.socket) -> list[dict[str, Any]]:
    return [json.loads(line) for line in connection.recv(65536).decode().splitlines()]


def test_an_ask_is_passed_on_with_a_name_made_of_what_asks(desk: Desk) -> None:
    connection = desk.ask()
    [(number, fields)] = desk.said()
    assert fields["seq"] == 107
    assert fields["request"] == PLAIN
    assert heard(connection) == [{"path": f"/home/user/.cache/torpor/{fields['name']}.tar"}]
    desk.asks.answer(number, {"refused": "No."})
    assert heard(connection) == [{"refused": "No."}]
    assert connection.recv(1) == b""


def test_the_same_ask_once_more_has_another_name_and_another_ask_its_own(desk: Desk) -> None:
    for requirements, session in ((["a"], 1), (["a"], 1), (["b"], 1), (["a"], 2)):
        desk.ask(PLAIN | {"requirements": requirements, "session": session})
    names = [fields["name"] for _, fields in desk.said()]
    assert len(set(names)) == 4
    assert [name.rpartition("-")[2] for name in names] == ["0", "1", "0", "0"]
    other = Desk()
    for requirements, session in ((["a"], 2), (["b"], 1), (["a"], 1), (["a"], 1)):
        other.ask(PLAIN | {"requirements": requirements, "session": session})
    assert {fields["name"] for _, fields in other.said()} == set(names)
    other.close()


def test_another_host_is_asked_what_nobody_has_answered(desk: Desk) -> None:
    waiting = desk.ask()
    gone = desk.ask()
    first = desk.said()
    gone.close()
    desk.turn()
    desk.asks.begin_again(host_answers=True)
    assert desk.said() == first[:1]
    desk.asks.begin_again(host_answers=False)
    assert heard(waiting)[1:] == [{"refused": NOBODY}]


@pytest.mark.parametrize(
    "request_",
    [
        None,
        5,
        [],
        {},
        {"session": 1},
        PLAIN,
        REQUEST | {"session": "x"},
        REQUEST | {"requirements": 5},
        REQUEST | {"installed": []},
        REQUEST | {"libc": "x"},
    ],
)
def test_what_is_no_request_is_refused(desk: Desk, request_: object) -> None:
    assert heard(desk.ask(request_)) == [{"refused": NOT_UNDERSTOOD}]
    assert desk.said() == []
    assert desk.ask() is not None


def test_a_request_without_end_is_refused(desk: Desk) -> None:
    connection = desk.connect()
    connection.setblocking(False)
    for _ in range(20):
        try:
            connection.send(b"x" * 65536)
        except OSError:
            break
        desk.turn()
    assert not desk.asks._asks


def test_what_would_be_passed_on_at_length_is_refused(desk: Desk) -> None:
    text = json.dumps(PLAIN | {"session": 7, "installed": {"a": "ä" * 100_000}}, ensure_ascii=False)
    connection = desk.connect()
    rest = text.encode() + b"\n"
    while rest:
        connection.sendall(rest[:50_000])
        rest = rest[50_000:]
        desk.turn()
    assert heard(connection)[-1] == {"refused": NOT_UNDERSTOOD}
    assert desk.said() == []


def test_no_more_are_heard_than_there_may_be_at_once(desk: Desk) -> None:
    connections = [desk.connect() for _ in range(AT_ONCE + 3)]
    assert [connection.recv(1) for connection in connections[AT_ONCE:]] == [b""] * 3
    connections[0].close()
    desk.turn()
    desk.ask()
    assert len(desk.said()) == 1


def test_who_says_nothing_makes_way_in_time(desk: Desk) -> None:
    for _ in range(AT_ONCE):
        desk.connect()
    for ask in desk.asks._asks.values():
        ask.since -= 60
    desk.ask()
    assert len(desk.said()) == 1


def test_a_successor_goes_on_with_those_that_wait_and_with_their_names(desk: Desk) -> None:
    waiting = desk.ask()
    [(number, fields)] = desk.said()
    handed_over = json.loads(json.dumps(desk.asks.handed_over()))
    out = Outbox()
    successor = Asks(out)
    successor.take_over(handed_over)
    successor.begin_again(host_answers=True)
    desk.out, desk.asks, predecessor = out, successor, desk.asks
    assert desk.said() == [(number, fields)]
    desk.ask()
    assert desk.said()[0][1]["name"] == fields["name"].removesuffix("0") + "1"
    successor.answer(number, {"refused": "No."})
    assert {"refused": "No."} in heard(waiting)
    for ask in predecessor._asks.values():
        ask.connection.detach()
    assert predecessor._listener is not None
    predecessor._listener.detach()


def test_who_asks_again_and_again_fills_no_memory_while_the_host_does_not_read(desk: Desk) -> None:
    large = json.dumps(PLAIN | {"session": 7, "installed": {"a": "1" * 100_000}}).encode() + b"\n"
    for _ in range(40):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(desk.address)
        connection.sendall(large)
        for _ in range(5):
            desk.turn(0)
        connection.close()
        desk.turn(0)
    assert WINDOW_BYTES <= sum(map(len, desk.out._pending)) < 2 * WINDOW_BYTES
    desk.said()
    for _ in range(5):
        desk.turn(0)
    assert desk.said()  # those that have waited
