"""One command of the user's: how it is started, and what the supervisor holds of it."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct
import termios
import time
from collections import deque
from typing import Any, NamedTuple

from . import handover
from .processes import ENVIRONMENT, HOME, PASSED_ON, USER_ID

SHELL = "/bin/bash"
NOT_FOUND, NOT_STARTED = 127, 126
"""Exit codes of what is not there, and of what cannot be started, as shells have them."""
FROM_KEYS = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
WINDOW = struct.Struct("HHHH")
END_OF_INPUT = b"\x04"
"""What a terminal takes for the end of its input."""


class Limits(NamedTuple):
    """What a command's processes may use."""

    address_space_bytes: int = 0
    """0: nobody has said."""
    tasks: int = 0
    """Processes and threads of the user's, all together: from then on a command starts no other. It only keeps a bomb
    from growing faster than it is noticed, so it is larger than the number of processes for which they are killed."""


class Command:
    """A command that was sent: before it is started, while it runs, and until the last of its pipes is closed."""

    def __init__(self, fields: dict[str, Any]) -> None:
        """As the host sends it; `start` comes next."""
        self.seq: int = fields["seq"]
        self.pid: int | None = None
        self.pipes: dict[int, int] = {}
        """Read ends of its standard output and standard error: descriptor to kind."""
        self.stdin = -1
        self.input: deque[bytes] = deque()
        self.closing = False
        """Its standard input is to be closed once `input` is written."""
        self.is_terminal: bool = fields["terminal"] is not None
        self.started = time.monotonic()
        self.said_bytes = 0
        self.limit_bytes: int = fields["output_limit_bytes"]
        """What is said beyond it is only counted."""
        self.skipped_bytes = 0
        """Counted, and not told yet."""
        self.told_at = 0.0
        self.status: int | None = None
        """Its wait status, once it has ended."""
        self.unread: dict[int, int] = {}
        """How much was in its pipes when it ended, and is not read yet."""
        self.ended = False
        """Its end was told."""
        self.runtime_ms = 0
        self.reason: str | None = None
        """Why it was killed, if it was by us."""
        self.spec: dict[str, Any] | None = fields
        """Until it is started."""
        if fields["stdin"]:
            self.input.append(handover.unpack(fields["stdin"]))
        self.closing = not fields["stdin_open"]

    def start(self, limits: Limits) -> None:
        """Start it; what is in the way its child says on standard error. Raises `OSError` if there is none."""
        spec, self.spec = self.spec or {}, None
        self.started = time.monotonic()
        theirs: list[int] = []
        ours: list[int] = []
        try:
            if spec["terminal"] is not None:
                master, slave = _terminal(spec["terminal"])
                ours, theirs = [master], [slave, slave, slave]
            else:
                if self.closing and not self.input:
                    stdin_read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                else:
                    stdin_read, self.stdin = os.pipe()
                    ours.append(self.stdin)
                theirs.append(stdin_read)
                for _ in range(2):
                    read, write = os.pipe()
                    ours.append(read)
                    theirs.append(write)
            leads, told = os.pipe()
            ours.append(leads)
            theirs.append(told)
            in_sandbox = os.getpid() == 1
            self.pid = os.fork()
        except OSError:
            for fd in {*ours, *theirs}:
                os.close(fd)
            self.stdin = -1
            raise
        if self.pid == 0:
            try:
                _become(spec, theirs[:3], told, limits, in_sandbox=in_sandbox)
            finally:
                os._exit(NOT_STARTED)
        for fd in set(theirs):
            os.close(fd)
        # Until it leads its group, a signal for that group would reach nobody.
        os.read(leads, 1)
        os.close(ours.pop())
        for fd in ours:
            os.set_blocking(fd, False)
        if spec["terminal"] is not None:
            self.stdin = os.dup(ours[0])
            self.pipes = {ours[0]: 0}
        else:
            self.pipes = dict(zip(ours[-2:], (0, 1), strict=True))

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.pid is not None and self.status is None

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size; nothing happens without one."""
        if self.is_terminal and self.stdin >= 0:
            fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, WINDOW.pack(rows, columns, 0, 0))

    def group(self, number: int) -> int | None:
        """The process group that a signal is for: what keys of a terminal send goes to its foreground."""
        if self.is_terminal and self.stdin >= 0 and number in FROM_KEYS:
            try:
                return os.tcgetpgrp(self.stdin) or self.pid
            except OSError:
                pass
        return self.pid

    def feed(self) -> None:
        """Write of its input what can be written without waiting."""
        try:
            while self.input:
                piece = self.input[0]
                written = os.write(self.stdin, piece[: 64 << 10])
                if written == len(piece):
                    self.input.popleft()
                else:
                    self.input[0] = piece[written:]
        except BlockingIOError:
            return
        except OSError:
            self.close_stdin()
            return
        if self.closing and self.stdin >= 0:
            if not self.is_terminal:
                self.close_stdin()
            else:
                self.closing = False

    def close_stdin(self) -> None:
        """Close its input; what waits for it is dropped."""
        self.input.clear()
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def close(self, fd: int) -> None:
        """Close one of its pipes."""
        del self.pipes[fd]
        self.unread.pop(fd, None)
        os.close(fd)

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to it."""
        return [*self.pipes, *([self.stdin] if self.stdin >= 0 else [])]

    def handed_over(self) -> dict[str, Any]:
        """What the supervisor's successor needs to know of it, once it was started."""
        return {
            "seq": self.seq,
            "pid": self.pid,
            "pipes": [[fd, kind] for fd, kind in self.pipes.items()],
            "stdin": self.stdin,
            "input": list(map(handover.pack, self.input)),
            "closing": self.closing,
            "terminal": self.is_terminal,
            "started": self.started,
            "said_bytes": self.said_bytes,
            "limit_bytes": self.limit_bytes,
            "skipped_bytes": self.skipped_bytes,
            "status": self.status,
            "unread": [[fd, size] for fd, size in self.unread.items()],
            "ended": self.ended,
            "runtime_ms": self.runtime_ms,
            "reason": self.reason,
        }

    @classmethod
    def taken_over(cls, fields: dict[str, Any]) -> Command:
        """The same command, in the supervisor's successor; without touching a descriptor."""
        command = cls(
            {
                "seq": fields["seq"],
                "terminal": {} if fields["terminal"] else None,
                "output_limit_bytes": fields["limit_bytes"],
                "stdin": "",
                "stdin_open": not fields["closing"],
            }
        )
        command.spec = None
        command.pid = fields["pid"]
        command.pipes = dict(fields["pipes"])
        command.stdin = fields["stdin"]
        command.input.extend(map(handover.unpack, fields["input"]))
        command.unread = dict(fields["unread"])
        for name in ("started", "said_bytes", "skipped_bytes", "status", "ended", "runtime_ms", "reason"):
            setattr(command, name, fields[name])
        return command


def _terminal(size: dict[str, Any]) -> tuple[int, int]:
    """A pseudo-terminal of the user's: our end, and the command's."""
    in_sandbox = os.getpid() == 1
    if in_sandbox:
        os.seteuid(USER_ID)  # whose it is then: there is no capability to give it away
    try:
        master, slave = os.openpty()
    finally:
        if in_sandbox:
            os.seteuid(0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, WINDOW.pack(size["rows"], size["columns"], 0, 0))
    return master, slave


def _become(spec: dict[str, Any], fds: list[int], told: int, limits: Limits, *, in_sandbox: bool) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.close(told)
    # The numbers 0 to 2 are the supervisor's own, which are no descriptors of a command's.
    for place, fd in enumerate(fds):
        os.dup2(fd, place)
    if spec["terminal"] is not None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    environment = ENVIRONMENT | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if in_sandbox:
        os.setgroups([])
        os.setgid(USER_ID)
        os.setuid(USER_ID)
        os.chdir(HOME)
    else:
        environment |= {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    environment |= spec["env"]
    if in_sandbox and limits.address_space_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (limits.address_space_bytes, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.tasks, limits.tasks))
    folder, argv = spec["cwd"], spec["argv"]
    try:
        if folder is not None:
            home = environment["HOME"]
            os.chdir(home + folder[1:] if folder == "~" or folder.startswith("~/") else folder)
    except OSError as error:
        _give_up(NOT_STARTED, f"the folder {folder!r} cannot be entered: {error.strerror}")
    arguments = [SHELL, "-c", argv] if isinstance(argv, str) else argv
    try:
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606  # no shell is wanted
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED
        _give_up(code, f"{arguments[0]!r} cannot be started: {error.strerror}")


def _give_up(code: int, message: str) -> None:
    os.write(2, f"torpor: {message}\n".encode("utf-8", "backslashreplace"))
    os._exit(code)
