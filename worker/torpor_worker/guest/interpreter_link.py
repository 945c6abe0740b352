"""The supervisor's end of the channel to the interpreter, which may lose its own, write whatever it likes, or die."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from . import channel, handover, processes
from .input import Input

READ_BYTES = 64 << 10
"""What a pipe holds. A larger buffer would be mapped and unmapped for every read, which is slow in a sandbox."""


class InterpreterLink:
    """The interpreter as long as it lives, and what is on its way to it and from it. Nothing here waits for it."""

    def __init__(self) -> None:
        self.version = channel.VERSION
        """In which it speaks: it may be of older code than this."""
        self._outgoing: deque[bytes] = deque()
        self._assembler = channel.Assembler(*channel.FROM_INTERPRETER)
        self._listener: socket.socket
        self._process: processes.Interpreter | None = None
        self._kill_reason: str | None = None

    def start(self, load_body: bytes) -> None:
        """Start it, with the same code."""
        self._listener, address = channel.listen()
        self._process = processes.start_interpreter(load_body, address)

    @property
    def pid(self) -> int | None:
        """Of its process; None once that has ended."""
        return None if self._process is None else self._process.pid

    @property
    def is_connected(self) -> bool:
        """Whether packets can come."""
        return self._process is not None and self._process.socket_fd >= 0

    @property
    def pipes(self) -> list[int]:
        """Read ends of its fds 1 and 2, in this order."""
        return [] if self._process is None else list(self._process.pipes)

    def wants(self, *, has_room: bool) -> list[int]:
        """Descriptors and what to wait for at each, one after the other; without room it is only spoken to."""
        process = self._process
        if process is None:
            return []
        wants = [self._listener.fileno(), select.POLLIN]
        mask = (select.POLLIN if has_room else 0) | (select.POLLOUT if self._outgoing else 0)
        if mask and process.socket_fd >= 0:
            wants += (process.socket_fd, mask)
        if has_room:  # after the socket: what was written before a result is seen with it
            for fd in process.pipes:
                wants += (fd, select.POLLIN)
        return wants

    def is_heard(self, ready: dict[int, int]) -> bool:
        """Whether it has sent something, or has let go of the connection."""
        return self._process is not None and self._process.socket_fd in ready

    def receive(self) -> channel.Message | None:
        """The message that the next packet completes, if it does.

        Raises `BlockingIOError` if there is none, another `OSError` if it has let go of the connection, and
        `ChannelError` if what came cannot be a packet.
        """
        if self._process is None:
            raise ConnectionError("the interpreter has ended")
        packet = self._process.socket.recv(channel.PACKET.size + channel.PACKET_BYTES)
        if not packet:
            raise ConnectionError("the interpreter has closed its connection")
        try:
            return self._assembler.add(packet)
        except channel.ChannelError:
            self._assembler = channel.Assembler(*channel.FROM_INTERPRETER)
            raise

    def read_pipe(self, fd: int) -> bytes:
        """Some of what is in a pipe, nothing if it is empty; one that has no writer left is closed."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return b""
        if not data and self._process is not None:
            self._process.close_pipe(fd)
        return data

    def say(self, packets: Iterable[bytes]) -> None:
        """Send these after what is on its way already."""
        self._outgoing.extend(packets)

    def feed(self, given: Input | None) -> None:
        """Send what can be sent without waiting; `given` is the input of the instruction that runs."""
        process = self._process
        while self._outgoing and process is not None and process.socket_fd >= 0:
            packet = self._outgoing[0]
            try:
                if given is not None and packet[0] == channel.PIPE:
                    given.hand_to(process.socket, packet)
                else:
                    process.socket.send(packet)
            except OSError:
                return  # there is no room, or it comes back, or it is dead
            self._outgoing.popleft()

    def accept(self, ready: dict[int, int]) -> socket.socket | None:
        """The connection that it asks for if it has lost its own; `adopt` comes next."""
        if self._process is None or self._listener.fileno() not in ready:
            return None
        return channel.accept(self._listener)

    def adopt(self, connection: socket.socket) -> None:
        """Go on with another connection, and other pipes."""
        if self._process is not None:
            self._process.adopt(connection)
        self._assembler = channel.Assembler(*channel.FROM_INTERPRETER)

    def disconnect(self) -> None:
        """Let go of a connection that it has let go of."""
        if self._process is not None:
            self._process.disconnect()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it is gone."""
        if self._process is not None:
            self._process.signal(number)

    def kill(self, reason: str) -> None:
        """End it; the first reason is the one that is told."""
        if self._process is not None:
            self._kill_reason = self._kill_reason or reason
            self._process.signal(signal.SIGKILL)

    def bury(self, status: int) -> str:
        """Let go of it, as it has ended with this wait status and all that it said is read; why it ended."""
        if self._process is not None:
            self._process.close()
            self._process = None
        return self._kill_reason or processes.describe(status)

    # The successor.

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to it."""
        return [self._listener.fileno(), *([] if self._process is None else self._process.fds)]

    def handed_over(self) -> dict[str, Any]:
        """For the supervisor's successor."""
        return {
            "channel": self.version,
            "to_interpreter": list(map(handover.pack, self._outgoing)),
            "parts": [[ident, handover.pack(part)] for ident, part in self._assembler.parts.items()],
            "kill_reason": self._kill_reason,
            "listener": self._listener.fileno(),
            "interpreter": None if self._process is None else self._process.handed_over(),
        }

    def take_over(self, fields: dict[str, Any]) -> None:
        """Begin with what another one had, without touching a descriptor; `open` comes next."""
        self.version = fields["channel"]
        self._outgoing.extend(map(handover.unpack, fields["to_interpreter"]))
        self._assembler.go_on_with({ident: handover.unpack(part) for ident, part in fields["parts"]})
        self._kill_reason = fields["kill_reason"]

    def open(self, fields: dict[str, Any]) -> None:
        """Go on with the descriptors that another one had."""
        self._listener = channel.opened(fields["listener"])
        if fields["interpreter"] is not None:
            self._process = processes.Interpreter.taken_over(fields["interpreter"])
