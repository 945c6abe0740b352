"""Asks for packages: what a `pip` of the user's wants is passed to the host, which hands it in as a file.

The host gives an answer only to refuse: what is handed in appears under the name that the ask has from here. The name
is made of what asks, so that an instruction that runs again asks for the same name, and finds what it was given before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import time
from typing import Any

from . import channel
from .frames import ASK_LIMIT_BYTES, FrameType
from .outbox import Outbox
from .processes import HOME

FOLDER = f"{HOME}/.cache/torpor"
AT_ONCE = 8
QUEUED = 64
"""Connections that nobody has looked at yet; more are turned away."""
REQUEST_SECONDS = 10.0
COUNTED = 1024
"""Of how many different asks it is known how often they were made."""
READ_BYTES = 64 << 10
FLAGS = ("upgrade", "prereleases", "no_dependencies", "fresh")
NOBODY = "This machine is looked after by a server that hands in no packages."
NOT_UNDERSTOOD = "The request for packages was not understood."


class Ask:
    """One connection of a `pip`: first it says what it wants, then it waits."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = bytearray()
        self.since = time.monotonic()
        self.number = -1
        self.fields: dict[str, Any] | None = None
        """What the host is asked, once it is known."""

    @property
    def fd(self) -> int:
        """Of its connection."""
        return self.connection.fileno()

    def say(self, fields: dict[str, Any]) -> None:
        """Tell it something; one that does not listen is told nothing."""
        with contextlib.suppress(OSError):
            self.connection.send(json.dumps(fields).encode() + b"\n")


class Asks:
    """All that wait. Nothing here waits for any of them."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._listener: socket.socket | None = None
        self._asks: dict[int, Ask] = {}
        """By descriptor."""
        self._counts: dict[str, int] = {}
        self._numbers = 0
        self._host_answers = False

    def listen(self) -> str:
        """Begin; the address at which it is asked."""
        address = f"\0torpor-{os.urandom(16).hex()}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(address)
        self._listener.listen(QUEUED)
        return address

    def wants(self) -> list[int]:
        """Descriptors and what to wait for at each, one after the other; none while the host is behind."""
        if self._out.is_behind:
            return []
        fds = [ask.fd for ask in self._asks.values()]
        if self._listener is not None:
            fds.append(self._listener.fileno())
        return [part for fd in fds for part in (fd, select.POLLIN)]

    def serve(self, ready: dict[int, int], running: Any) -> None:
        """One turn; `running` gives the seq that runs in a session."""
        for ask in list(self._asks.values()):
            if ask.fd in ready:
                self._read(ask, running)
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept()

    def begin_again(self, *, host_answers: bool) -> None:
        """Another host listens: ask it what nobody has answered, if it understands that."""
        self._host_answers = host_answers
        for ask in list(self._asks.values()):
            if ask.fields is not None:
                self._pass_on(ask)

    def answer(self, number: int, fields: dict[str, Any]) -> None:
        """The host has said something of an ask; after a refusal nothing more is said."""
        for ask in list(self._asks.values()):
            if ask.number == number:
                ask.say(fields)
                if "refused" in fields:
                    self._close(ask)

    def _accept(self) -> None:
        listener = self._listener
        connection = None if listener is None else channel.accept(listener)
        if connection is None:
            return
        now = time.monotonic()
        for ask in list(self._asks.values()):
            if ask.fields is None and now > ask.since + REQUEST_SECONDS:
                self._close(ask)
        if len(self._asks) >= AT_ONCE:
            connection.close()
            return
        self._asks[connection.fileno()] = Ask(connection)

    def _read(self, ask: Ask, running: Any) -> None:
        try:
            data = ask.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if ask.fields is not None or not data:  # nobody waits any more
            self._close(ask)
            return
        ask.heard += data
        if len(ask.heard) > ASK_LIMIT_BYTES:
            self._refuse(ask, NOT_UNDERSTOOD)
        elif ask.heard.endswith(b"\n"):
            self._ask(ask, running)

    def _ask(self, ask: Ask, running: Any) -> None:
        try:
            said = json.loads(ask.heard)
            seq, request = running(int(said["session"])), _request(said)
        except Exception:  # whatever user code may have sent
            self._refuse(ask, NOT_UNDERSTOOD)
            return
        digest = hashlib.sha256(json.dumps(request["requirements"]).encode()).hexdigest()[:16]
        key = f"{seq}-{digest}"
        count = self._counts.pop(key, 0)
        self._counts[key] = count + 1
        while len(self._counts) > COUNTED:
            del self._counts[next(iter(self._counts))]
        name = f"{key}-{count}"
        self._numbers += 1
        ask.heard.clear()
        ask.number = self._numbers
        ask.fields = {"seq": seq, "name": name, "request": request}
        ask.say({"path": f"{FOLDER}/{name}.tar"})
        self._pass_on(ask)

    def _pass_on(self, ask: Ask) -> None:
        body = json.dumps(ask.fields).encode()
        if not self._host_answers:
            self._refuse(ask, NOBODY)
        elif len(body) > ASK_LIMIT_BYTES:  # what is no ASCII is longer here
            self._refuse(ask, NOT_UNDERSTOOD)
        else:
            self._out.say(FrameType.PACKAGES_WANTED, body, ask.number)

    def _refuse(self, ask: Ask, sentence: str) -> None:
        ask.say({"refused": sentence})
        self._close(ask)

    def _close(self, ask: Ask) -> None:
        del self._asks[ask.fd]
        ask.connection.close()

    # The successor.

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to it."""
        listener = [] if self._listener is None else [self._listener.fileno()]
        return [*listener, *(ask.fd for ask in self._asks.values())]

    def handed_over(self) -> dict[str, Any]:
        """For the supervisor's successor; who has not said what it wants must ask again."""
        for ask in list(self._asks.values()):
            if ask.fields is None:
                self._close(ask)
        return {
            "listener": None if self._listener is None else self._listener.fileno(),
            "asks": [[ask.fd, ask.number, ask.fields] for ask in self._asks.values()],
            "counts": self._counts,
            "numbers": self._numbers,
        }

    def take_over(self, fields: dict[str, Any]) -> None:
        """Begin with what another one had."""
        if fields["listener"] is not None:
            self._listener = channel.opened(fields["listener"])
        for fd, number, said in fields["asks"]:
            ask = Ask(channel.opened(fd))
            ask.number, ask.fields = number, said
            self._asks[fd] = ask
        self._counts = dict(fields["counts"])
        self._numbers = fields["numbers"]

    @property
    def is_listening(self) -> bool:
        """Whether it can be asked."""
        return self._listener is not None


def _request(said: dict[str, Any]) -> dict[str, Any]:
    """What a `pip` may ask for, and nothing else."""
    request: dict[str, Any] = {name: [str(each) for each in said[name]] for name in ("requirements", "constraints")}
    request["installed"] = {str(name): str(version) for name, version in said["installed"].items()}
    request |= {name: bool(said[name]) for name in FLAGS}
    request |= {name: str(said[name]) for name in ("python", "architecture")}
    request["libc"] = [int(part) for part in said["libc"]]
    return request
