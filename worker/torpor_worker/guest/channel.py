"""Messages between supervisor and interpreter, over a socket pair that keeps message boundaries.

Each packet is sent whole or not at all, so threads, forks and interrupts cannot cut a message; a long one is several
packets with the same `ident`, the last without MORE. Either end may be lied to by the other.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
from typing import NamedTuple

VERSION = 4
"""Of all that is said over the channel. Goes up when an interpreter of before could not talk with this supervisor."""
SPOKEN = frozenset({1, 2, 3, 4})
"""Versions in which this supervisor can talk with an interpreter, which keeps its code as long as it lives."""

PACKET = struct.Struct(">BBIq")
"""Type, flags, ident of a message in several packets, seq."""
PACKET_BYTES = 48 << 10
MESSAGE_LIMIT_BYTES = 7 << 20
NOTICE_CHARACTERS = 2000
MORE = 1
TASKS = 2
"""Flag of a result: tasks of the user's are left on the event loop."""
THREADS = 4
"""Flag of a result: threads of the user's are left."""
REPLAYING = 8
BURST = 16
"""Flag of output: more may wait, so nudge for it."""
OPEN = 32
"""Flag of input: the next packet, a PIPE, brings a descriptor from which more may be read."""


EXECUTE, RESEED, LIMITS, COMPLETE, STDIN, PIPE, REHEARSE = 1, 2, 3, 4, 5, 6, 7
READY, STDOUT, STDERR, DISPLAY, RESULT, NOTICE, COMPLETION = 16, 17, 18, 19, 20, 21, 22
FROM_SUPERVISOR = EXECUTE, RESEED, LIMITS, COMPLETE, STDIN, REHEARSE
FROM_INTERPRETER = READY, STDOUT, STDERR, DISPLAY, RESULT, NOTICE, COMPLETION
COMPLETES = 2
"""The first version in which an interpreter can be asked what could follow at a cursor."""
READS = 3
"""The first version in which an interpreter can be given input for an instruction."""
REHEARSES = 4
"""The first version in which an interpreter can be asked to rehearse."""

_idents = itertools.count(1)


class ChannelError(Exception):
    """What came over the channel is not a message."""


class Message(NamedTuple):
    """One whole message."""

    type: int
    flags: int
    seq: int
    body: bytes


def packets(kind: int, flags: int, seq: int, body: bytes) -> list[bytes]:
    """The packets of a message."""
    if len(body) <= PACKET_BYTES:
        return [PACKET.pack(kind, flags, 0, seq) + body]
    ident = (os.getpid() << 16 | next(_idents) & 0xFFFF) & 0xFFFFFFFF
    last = (len(body) - 1) // PACKET_BYTES * PACKET_BYTES
    return [
        PACKET.pack(kind, flags | (MORE if start < last else 0), ident, seq) + body[start : start + PACKET_BYTES]
        for start in range(0, last + 1, PACKET_BYTES)
    ]


class Assembler:
    """Puts messages together from packets, whatever order senders interleave them in."""

    def __init__(self, *types: int) -> None:
        self._types = types
        self._parts: dict[int, bytearray] = {}
        self._held = 0

    @property
    def parts(self) -> dict[int, bytes]:
        """What has come of messages that are not whole yet, by ident."""
        return {ident: bytes(part) for ident, part in self._parts.items()}

    def go_on_with(self, parts: dict[int, bytes]) -> None:
        """Begin with what another assembler had."""
        self._parts = {ident: bytearray(part) for ident, part in parts.items()}
        self._held = sum(map(len, parts.values()))

    def add(self, packet: bytes) -> Message | None:
        """The message that this packet completes. Raises `ChannelError` for what cannot be one."""
        if len(packet) < PACKET.size:
            raise ChannelError("a packet is too short")
        kind, flags, ident, seq = PACKET.unpack_from(packet)
        if kind not in self._types:
            raise ChannelError("a packet is of an unknown type")
        body = packet[PACKET.size :]
        if ident == 0 and not flags & MORE:
            return Message(kind, flags, seq, body)
        parts = self._parts.setdefault(ident, bytearray())
        parts += body
        self._held += len(body)
        if self._held > 2 * MESSAGE_LIMIT_BYTES or len(self._parts) > 64:
            raise ChannelError("a message is too long")
        if flags & MORE:
            return None
        del self._parts[ident]
        self._held -= len(parts)
        return Message(kind, flags, seq, bytes(parts))


def pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair for it: the supervisor's end, which does not block, and the interpreter's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def listen() -> tuple[socket.socket, str]:
    """A socket at which an interpreter that has lost its connection asks for another, and its secret address."""
    address = f"\0torpor-{os.urandom(16).hex()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    listener.bind(address)
    listener.listen(4)
    return listener, address


def opened(fd: int) -> socket.socket:
    """The socket behind a descriptor that was handed over."""
    connection = socket.socket(fileno=fd)
    connection.setblocking(False)
    os.set_inheritable(fd, False)
    return connection


def notice(body: bytes) -> str | None:
    """What a notice says, as far as anybody will read it; None if it is none."""
    try:
        return str(json.loads(body)["message"])[:NOTICE_CHARACTERS]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def accept(listener: socket.socket) -> socket.socket | None:
    """The connection that somebody who knows the address asks for."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    connection.setblocking(False)
    return connection
