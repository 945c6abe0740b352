"""The process that does one piece of work on the user's files, as the user: only it ever waits for them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import Any

from . import file_access, file_archive, processes
from .file_changes import CHANGES, Change

DATA, FINISH, APPLY = b"D", b"F", b"A"
"""What the supervisor says. If it closes the connection nobody wants the work any more."""
INFO, PREPARED, TAKEN, ENDED = b"I", b"P", b"T", b"E"
"""What the worker says, beside `DATA`; JSON follows."""
PACKET_BYTES = file_access.PIECE_BYTES + 1


class _Abandoned(BaseException):
    """Nobody wants it any more."""


class Worker:
    """One piece of work, over a socket that keeps the boundaries of packets."""

    def __init__(self, connection: socket.socket, fields: dict[str, Any], token: str) -> None:
        self._connection = connection
        self._fields = fields
        self._token = token
        self._taken = 0
        self._finished = False
        """The body has ended."""
        self._has_begun = False
        """A change that is refused was half made."""

    def work(self, *, resume: bool) -> None:
        """Do it and say how it ended; `resume`: another was killed while applying it."""
        with contextlib.suppress(_Abandoned):
            try:
                if resume:
                    self._apply(self._change())
                answer = {} if resume else self._do() or {}
            except Exception as error:
                refused = file_access.refusal(error)
                half_made = resume or self._has_begun
                answer = {"error": {"code": refused.code, "message": str(refused), "half_made": half_made}}
            self._say(ENDED, answer)
            while True:  # until it was heard: what is unread when this ends might take the last word along
                self._receive(DATA, FINISH)

    def clean(self) -> None:
        """Remove what one that was killed had prepared."""
        with contextlib.suppress(Exception):
            self._change().clean()

    def _change(self) -> Change:
        return CHANGES[self._fields["work"]](self._fields, self._token)

    def _do(self) -> dict[str, Any] | None:
        fields = self._fields
        match fields["work"]:
            case "look":
                return file_access.look(file_access.path_of(fields["path"]), digest=fields["digest"])
            case "read":
                file_access.read(fields, self._tell, self._give)
            case "list":
                return file_access.listing(fields, self._give)
            case "archive":
                file_archive.archive(fields, self._tell, self._give)
            case _:
                change = self._change()
                try:
                    change.prepare(self._take)
                    while not self._finished:
                        self._take()
                    self._say(PREPARED, change.about())
                    self._receive(APPLY)
                except BaseException:
                    change.clean()
                    raise
                self._apply(change)
        return None

    def _apply(self, change: Change) -> None:
        try:
            change.apply()
        except Exception:
            self._has_begun = change.has_begun
            change.clean()
            raise

    def _tell(self, about: dict[str, Any]) -> None:
        self._say(INFO, about)

    def _say(self, kind: bytes, fields: dict[str, Any]) -> None:
        self._send(kind + json.dumps(fields).encode())

    def _give(self, data: bytes) -> None:
        self._send(DATA + data)

    def _send(self, packet: bytes) -> None:
        try:
            self._connection.send(packet)
        except OSError:
            raise _Abandoned from None

    def _take(self) -> bytes:
        """The next piece of the body; none at its end."""
        if self._finished:
            return b""
        if self._taken:
            self._say(TAKEN, {"bytes": self._taken})
        data = self._receive(DATA, FINISH)
        self._taken += len(data)
        self._finished = not data
        return data

    def _receive(self, *kinds: bytes) -> bytes:
        try:
            packet = self._connection.recv(PACKET_BYTES)
        except OSError:
            packet = b""
        if packet[:1] not in kinds:
            raise _Abandoned
        return packet[1:]


def start(fields: dict[str, Any], token: str, *, resume: bool = False) -> tuple[int, socket.socket]:
    """Start one: its process id, and a connection to it that does not block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    in_sandbox = os.getpid() == 1
    pid = os.fork()
    if pid == 0:
        try:
            Worker(_become_user(theirs, in_sandbox=in_sandbox), fields, token).work(resume=resume)
        finally:
            os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return pid, ours


def start_cleaning(fields: dict[str, Any], token: str) -> int:
    """Start one that removes what a killed one had prepared; its process id."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    in_sandbox = os.getpid() == 1
    pid = os.fork()
    if pid == 0:
        try:
            Worker(_become_user(theirs, in_sandbox=in_sandbox), fields, token).clean()
        finally:
            os._exit(0)
    ours.close()
    theirs.close()
    return pid


def _become_user(connection: socket.socket, *, in_sandbox: bool) -> socket.socket:
    """Let go of all that is the supervisor's, of its rights first."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(null, place)
    fd = os.dup2(connection.fileno(), 3)
    os.closerange(4, 1024)
    connection.detach()
    os.setsid()
    os.umask(0o022)
    if in_sandbox:
        os.setgroups([])
        os.setgid(processes.USER_ID)
        os.setuid(processes.USER_ID)
        os.chdir(processes.HOME)
    return socket.socket(fileno=fd)
