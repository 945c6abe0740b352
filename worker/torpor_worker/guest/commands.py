"""The commands beside cells: the supervisor starts them, reads them, feeds them, and tells how they ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import termios
import time
from collections import deque
from typing import Any

from . import frames, handover, processes
from .command import END_OF_INPUT, NOT_STARTED, Command, Limits
from .frames import FrameType
from .outbox import Outbox

READ_BYTES = 64 << 10
TERMINAL_BYTES = 256 << 10
"""How much at most is read of a terminal after its command has ended; what is in it cannot be asked."""
TELL_SECONDS = 1.0
"""How often it is told how much is only counted."""
LEFT_OPEN = 64
"""How many commands that have ended may leave pipes open, for what they left in the background."""
KILL_ROUNDS = 20
STDERR = 1


class Commands:
    """All commands of a sandbox. Nothing here waits for any of them."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._known: dict[int, Command] = {}
        """By seq, in the order in which they came; those too that have ended and left pipes open."""
        self._to_start: deque[Command] = deque()
        self.limits = Limits()

    def add(self, fields: dict[str, Any]) -> None:
        """A command came from the host; it is started in its turn, so that many at once hold up nobody."""
        command = Command(fields)
        self._known[command.seq] = command
        self._to_start.append(command)

    def feed(self, fields: dict[str, Any]) -> None:
        """Input for a command; nothing happens if it has ended, or its input is closed."""
        command = self._known.get(fields["seq"])
        if command is None or command.ended or command.closing or (command.spec is None and command.stdin < 0):
            return
        if fields["data"]:
            command.input.append(handover.unpack(fields["data"]))
        if fields["close"] and command.is_terminal:
            command.input.append(END_OF_INPUT)
        elif fields["close"]:
            command.closing = True
        if command.spec is None:
            command.feed()

    def signal(self, fields: dict[str, Any]) -> None:
        """Send a signal, if the command runs: to its foreground process group, or to its whole session."""
        command = self._known.get(fields["seq"])
        if command is None:
            return
        if command.spec is not None:
            self._start(command)
        if not command.is_running:
            return
        number = fields["signal"]
        if number == signal.SIGWINCH and fields.get("rows"):
            with contextlib.suppress(OSError):
                command.resize(fields["rows"], fields["columns"])
        elif fields["session"]:
            self._signal_session(command, number)
        elif (group := command.group(number)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)

    def kill(self, reason: str) -> int:
        """Kill all commands with all that is in their sessions; how many there were."""
        running = [command for command in self._known.values() if command.is_running]
        for command in running:
            command.reason = command.reason or reason
            self._signal_session(command, signal.SIGKILL)
        return len(running)

    def blame(self, pid: int, reason: str) -> None:
        """A process is about to be killed; if it is a command's first, this is why that ended."""
        for command in self._known.values():
            if command.pid == pid and command.is_running:
                command.reason = reason

    def seq_of(self, session: int) -> int | None:
        """Whose session it is, if it is a command's."""
        return next((each.seq for each in self._known.values() if each.pid == session), None)

    @property
    def running(self) -> list[list[float]]:
        """Seqs and how long each has run, in seconds."""
        now = time.monotonic()
        return [[each.seq, now - each.started] for each in self._known.values() if not each.ended]

    @property
    def are_waiting(self) -> bool:
        """Whether any is still to be started."""
        return bool(self._to_start)

    def wants(self) -> list[int]:
        """Descriptors and what to wait for at each, one after the other."""
        wants: list[int] = []
        has_room = self._out.has_room_for_commands
        for command in self._known.values():
            if has_room:
                for fd in command.pipes:
                    wants += (fd, select.POLLIN)
            if command.input and command.stdin >= 0:
                wants += (command.stdin, select.POLLOUT)
        return wants

    def serve(self, ready: dict[int, int]) -> None:
        """One turn: start one that waits, feed and read those that are ready, tell of ends."""
        if self._to_start:
            self._start(self._to_start[0])
        for command in list(self._known.values()):
            if command.input and command.stdin in ready:
                command.feed()
            for fd in list(command.pipes):
                if fd in ready and self._out.has_room_for_commands:
                    self._read(command, fd)
            if command.status is not None and not command.ended:
                self._end(command)
            if command.ended and not command.pipes:
                command.close_stdin()
                del self._known[command.seq]

    def reaped(self, pid: int, status: int) -> bool:
        """A child has ended: whether it was a command."""
        command = next((each for each in self._known.values() if each.pid == pid and each.status is None), None)
        if command is None:
            return False
        command.status = status
        command.runtime_ms = round((time.monotonic() - command.started) * 1000)
        for fd in command.pipes:
            command.unread[fd] = TERMINAL_BYTES if command.is_terminal else _waiting_bytes(fd)
        return True

    # What they do.

    def _start(self, command: Command) -> None:
        self._to_start.remove(command)
        try:
            command.start(self.limits)
        except OSError as error:
            self._say(command, STDERR, f"torpor: the command cannot be started: {error.strerror}\n".encode())
            self._told(command, NOT_STARTED, None)
            return
        command.feed()

    def _read(self, command: Command, fd: int) -> None:
        unread = command.unread.get(fd)
        try:
            data = os.read(fd, READ_BYTES if unread is None else min(READ_BYTES, max(1, unread)))
        except BlockingIOError:
            command.unread.pop(fd, None)
            return
        except OSError:  # a terminal that nobody has open any more
            data = b""
        if not data:
            command.close(fd)
            return
        if unread is not None:
            command.unread[fd] = unread - len(data)
        self._say(command, command.pipes[fd], data)

    def _end(self, command: Command) -> None:
        """Tell that it has ended, once all is said that was in its pipes by then."""
        for fd in list(command.unread):
            while self._out.has_room_for_commands and command.unread.get(fd, 0) > 0:
                self._read(command, fd)
        if any(size > 0 for size in command.unread.values()):
            return
        command.unread.clear()
        status = command.status or 0
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self._told(command, None if killed_by is not None else os.WEXITSTATUS(status), killed_by)
        ended = [each for each in self._known.values() if each.ended and each.pipes]
        for each in ended[: max(0, len(ended) - LEFT_OPEN)]:
            for fd in list(each.pipes):
                each.close(fd)

    def _told(self, command: Command, exit_code: int | None, killed_by: int | None) -> None:
        self._tell_skipped(command)
        command.ended = True
        command.close_stdin()
        fields = {
            "seq": command.seq,
            "exit_code": exit_code,
            "signal": killed_by,
            "runtime_ms": command.runtime_ms,
            "reason": command.reason if killed_by == signal.SIGKILL else None,
        }
        self._out.keep(FrameType.COMMAND_ENDED, json.dumps(fields).encode())

    def _say(self, command: Command, kind: int, data: bytes) -> None:
        room = max(0, command.limit_bytes - command.said_bytes)
        said = data[:room]
        if said:
            self._out.gather()
            self._keep(command, kind, 0, said)
        if len(said) < len(data):
            command.skipped_bytes += len(data) - len(said)
            if time.monotonic() >= command.told_at + TELL_SECONDS:
                self._tell_skipped(command)

    def _tell_skipped(self, command: Command) -> None:
        if command.skipped_bytes:
            size, command.skipped_bytes = command.skipped_bytes, 0
            command.told_at = time.monotonic()
            self._keep(command, 0, frames.SKIPPED, frames.OFFSET.pack(size), size)

    def _keep(self, command: Command, kind: int, flags: int, data: bytes, size: int | None = None) -> None:
        flags |= frames.HAS_OFFSET | (frames.BACKGROUND if command.ended else 0)
        head = frames.OUTPUT.pack(command.seq, kind, flags) + frames.OFFSET.pack(command.said_bytes)
        command.said_bytes += len(data) if size is None else size
        self._out.keep(FrameType.COMMAND_OUTPUT, head + data, urgent=command.ended)

    def _signal_session(self, command: Command, number: int) -> None:
        """Signal all that is in its session; where that kills, until nothing is left of it that could start another."""
        pid = command.pid
        if pid is None:
            return
        for _ in range(KILL_ROUNDS):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
            members = processes.of_session(pid)
            for member in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, number)
                    if number == signal.SIGTERM:
                        os.kill(member, signal.SIGCONT)
            if number != signal.SIGKILL or not members:
                return

    # The successor.

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to them."""
        return [fd for command in self._known.values() for fd in command.fds]

    def handed_over(self) -> list[dict[str, Any]]:
        """For the supervisor's successor; those that wait are started now."""
        while self._to_start:
            self._start(self._to_start[0])
        return [command.handed_over() for command in self._known.values()]

    def take_over(self, commands: list[dict[str, Any]]) -> None:
        """Begin with what another one had."""
        for fields in commands:
            command = Command.taken_over(fields)
            self._known[command.seq] = command

    def keep_to_themselves(self) -> None:
        """See to it that no child gets a descriptor that was handed over."""
        for fd in self.fds:
            os.set_inheritable(fd, False)


def _waiting_bytes(fd: int) -> int:
    """What is in a pipe."""
    size: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]
    return size
