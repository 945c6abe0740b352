"""The processes of a sandbox: starting the interpreter, and what the supervisor can see and signal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import channel, frames
from .installed import PIP_PACKAGE, SHIMS

USER_ID = 1000
HOME = "/home/user"
ENVIRONMENT = {
    "HOME": HOME,
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "PATH": f"{SHIMS}/bin:{HOME}/.local/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": f"{SHIMS}/site",
    "MALLOC_ARENA_MAX": "2",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OMP_NUM_THREADS": "4",
    "OPENBLAS_NUM_THREADS": "4",
    "MKL_NUM_THREADS": "4",
}
PASSED_ON = ("GLIBC_TUNABLES", "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE")
"""What the sandbox's spec sets so that libraries keep to the baseline of CPU features."""


class Interpreter:
    """The process that runs user code, with the ends of its socket pair and pipes that the supervisor holds."""

    def __init__(self, pid: int, connection: socket.socket, pipes: list[int]) -> None:
        self.pid = pid
        self.socket = connection
        self.socket_fd = connection.fileno()
        self.pipes = pipes
        """Read ends of its fds 1 and 2, in this order."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def close_pipe(self, fd: int) -> None:
        """Forget a pipe that has no writer left."""
        self.pipes.remove(fd)
        os.close(fd)

    def disconnect(self) -> None:
        """Let go of a socket pair that it has closed; it may ask for another."""
        self.socket.close()
        self.socket_fd = -1

    def adopt(self, connection: socket.socket) -> None:
        """Go on with a new connection, and give it new pipes for its fds 1 and 2."""
        self.close()
        stdout_read, stdout_write = os.pipe()
        stderr_read, stderr_write = os.pipe()
        with contextlib.suppress(OSError):
            socket.send_fds(connection, [b"fds"], [stdout_write, stderr_write])
        for fd in (stdout_write, stderr_write):
            os.close(fd)
        for fd in (stdout_read, stderr_read):
            os.set_blocking(fd, False)
        self.pipes = [stdout_read, stderr_read]
        self.socket, self.socket_fd = connection, connection.fileno()

    def close(self) -> None:
        """Let go of the supervisor's ends."""
        self.socket.close()
        for fd in self.pipes:
            os.close(fd)
        self.pipes = []

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to it."""
        return [fd for fd in (self.socket_fd, *self.pipes) if fd >= 0]

    def handed_over(self) -> dict[str, Any]:
        """What the supervisor's successor needs to know of it."""
        return {"pid": self.pid, "socket": self.socket_fd, "pipes": self.pipes}

    @classmethod
    def taken_over(cls, fields: dict[str, Any]) -> Interpreter:
        """The same process, in the supervisor's successor."""
        if fields["socket"] >= 0:
            interpreter = cls(fields["pid"], channel.opened(fields["socket"]), fields["pipes"])
        else:
            interpreter = cls(fields["pid"], channel.pair()[0], fields["pipes"])
            interpreter.disconnect()
        for fd in interpreter.pipes:
            os.set_inheritable(fd, False)
        return interpreter


def start_interpreter(load_body: bytes, address: str) -> Interpreter:
    """Start the user's interpreter: the same loader with the same code, without privilege where there is any.

    `address` is where it asks for a new connection if it loses its own.
    """
    ours, theirs = channel.pair()
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    load_read, load_write = os.pipe()
    in_sandbox = os.getpid() == 1
    pid = os.fork()
    if pid == 0:
        try:
            _become_interpreter(theirs.fileno(), load_read, stdout_write, stderr_write, in_sandbox=in_sandbox)
        finally:
            os._exit(127)
    for fd in (stdout_write, stderr_write, load_read):
        os.close(fd)
    theirs.close()
    payload = json.loads(load_body)
    body = json.dumps(payload | {"main": "interpreter", "address": address}).encode()
    data = memoryview(frames.HOST_MARKER + frames.encode(frames.FrameType.LOAD, -1, body))
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(load_write, data) :]
    os.close(load_write)
    for fd in (stdout_read, stderr_read):
        os.set_blocking(fd, False)
    return Interpreter(pid, ours, [stdout_read, stderr_read])


def _become_interpreter(socket_fd: int, load_fd: int, stdout_fd: int, stderr_fd: int, *, in_sandbox: bool) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    socket_fd = os.dup(socket_fd)
    for fd, place in ((load_fd, 0), (stdout_fd, 1), (stderr_fd, 2), (socket_fd, 3)):
        os.dup2(fd, place)
    os.closerange(4, 1024)
    environment = ENVIRONMENT | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if in_sandbox:
        os.setgroups([])
        os.setgid(USER_ID)
        os.setuid(USER_ID)
        os.chdir(HOME)
    else:
        environment |= {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    loader = sys.orig_argv[sys.orig_argv.index("-c") + 1]
    os.execve(sys.executable, [sys.executable, "-I", "-c", loader], environment)  # noqa: S606  # no shell is wanted


def describe(status: int) -> str:
    """How a process ended, for people, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by signal {number} ({signal.Signals(number).name})"
    return f"exit status {os.WEXITSTATUS(status)}"


def of_user() -> list[int]:
    """Processes of the user's, the interpreter among them; outside a sandbox only our children."""
    pids = []
    in_sandbox = os.getpid() == 1
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if in_sandbox:
                    is_mine = os.stat("/proc/" + name).st_uid == USER_ID
                else:
                    fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                    is_mine = fields[1] == str(os.getpid())
                if is_mine:
                    pids.append(int(name))
    return pids


def of_session(session: int) -> list[int]:
    """The processes of a session that live."""
    pids = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if fields[3] == str(session) and fields[0] not in {"Z", "X"}:
                    pids.append(int(name))
    return pids


def largest() -> int | None:
    """The process of the user's that holds the most memory."""
    sizes = []
    for pid in of_user():
        with contextlib.suppress(OSError, IndexError, ValueError):
            sizes.append((int(Path(f"/proc/{pid}/statm").read_text().split()[1]), pid))
    return max(sizes)[1] if sizes else None


def kill(pid: int) -> None:
    """Kill a process; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_all_of_user() -> None:
    """Kill every process of the user's, until none is left to fork another."""
    for _ in range(50):
        if os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        pids = of_user()
        if not pids:
            return
        for pid in pids:
            kill(pid)


def has_threads(pid: int) -> bool:
    """Whether a process has threads besides its first."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def install_pip(command: str, address: str) -> None:
    """Put a `pip` in front of the real one, which asks for packages at this address."""
    if os.getpid() != 1:
        return
    script = f"#!{sys.executable}\n{command}"
    files = {
        f"{SHIMS}/bin/pip": script,
        f"{SHIMS}/bin/pip3": script,
        f"{SHIMS}/site/pip/__init__.py": PIP_PACKAGE,
        f"{SHIMS}/site/pip/__main__.py": command,
        f"{SHIMS}/packages": address.removeprefix("\0"),
    }
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        Path(path).chmod(0o755)
