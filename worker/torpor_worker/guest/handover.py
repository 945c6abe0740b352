"""How a supervisor makes way for its successor: the same process executes other code, and goes on with what it had.

What is handed over is a JSON object that travels with the successor's code, through the same loader as the first code.
File descriptors stay open under their numbers. The successor is rehearsed in a child first: one that does not start, or
does not understand what it is handed, changes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

from . import channel, frames

FORMAT = 1
"""Of what is handed over, where there are no commands. A successor reads every format that there was."""
FORMAT_WITH_COMMANDS = 2
"""Not understood by code that would let go of them."""
FORMAT_WITH_INPUT = 3
"""With an instruction that may be given more to read; with commands or without."""
REHEARSAL_SECONDS = 20.0
SAID_BYTES = 500

STDIN = 0


class NotUnderstood(Exception):
    """What is handed over is of a later format, or the interpreter speaks in a way that this code does not."""


def pack(data: bytes) -> str:
    """Bytes as they are handed over."""
    return base64.b64encode(data).decode("ascii")


def unpack(text: str) -> bytes:
    """The bytes that `pack` was given."""
    return base64.b64decode(text)


def format_of(*, commands: bool, stdin: bool) -> int:
    """The first format that has all of it."""
    return FORMAT_WITH_INPUT if stdin else FORMAT_WITH_COMMANDS if commands else FORMAT


def check(fields: dict[str, Any]) -> None:
    """Raise `NotUnderstood` unless this code can go on with it."""
    if fields["format"] not in (FORMAT, FORMAT_WITH_COMMANDS, FORMAT_WITH_INPUT):
        raise NotUnderstood(f"format {fields['format']} of what is handed over")
    if fields["channel"] not in channel.SPOKEN:
        raise NotUnderstood(f"version {fields['channel']} of the interpreter's channel")


def rehearse(load: dict[str, Any], fields: dict[str, Any]) -> str | None:
    """Have a child start the successor and read what it would be handed; None if it can, else why not."""
    body = _memory(load | {"handover": fields, "rehearsal": True})
    said = os.memfd_create("said")
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for fd, place in ((body, 0), (said, 1), (said, 2)):
                os.dup2(fd, place)
            os.closerange(3, 1024)
            _execute()
        finally:
            os._exit(127)
    os.close(body)
    status = _awaited(pid, time.monotonic() + REHEARSAL_SECONDS)
    size = os.lseek(said, 0, os.SEEK_END)
    text = os.pread(said, SAID_BYTES, max(0, size - SAID_BYTES)).decode("utf-8", "replace").strip()
    os.close(said)
    if status == 0:
        return None
    return text or f"its rehearsal ended with status {status}"


def become(load: dict[str, Any], fields: dict[str, Any], fds: list[int]) -> None:
    """Become the successor, with these descriptors; returns only by an `OSError`, with everything as it was."""
    stdin = os.dup(STDIN)
    try:
        body = _memory(load | {"handover": fields | {"stdin": stdin}})
        for fd in (stdin, *fds):
            os.set_inheritable(fd, True)
        os.dup2(body, STDIN)
        os.close(body)
        _execute()
    finally:
        os.dup2(stdin, STDIN)
        os.close(stdin)
        for fd in fds:
            os.set_inheritable(fd, False)


def take_stdin(fields: dict[str, Any]) -> None:
    """Put the host's stream back where it was, after the successor's code was read from its place."""
    os.dup2(fields["stdin"], STDIN)
    os.close(fields["stdin"])


def _memory(payload: dict[str, Any]) -> int:
    """A file in memory from which a loader reads a payload."""
    fd = os.memfd_create("load")
    data = memoryview(frames.HOST_MARKER + frames.encode(frames.FrameType.LOAD, -1, json.dumps(payload).encode()))
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _execute() -> None:
    loader = sys.orig_argv[sys.orig_argv.index("-c") + 1]
    os.execve(sys.executable, [sys.executable, "-I", "-c", loader], os.environ)  # noqa: S606  # no shell is wanted


def _awaited(pid: int, deadline: float) -> int:
    """The exit code of a child; one that takes too long is killed."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
