"""The supervisor's side of work on files: workers that do it, and the bytes between them and the host.

A worker belongs to the user, who may kill or stop it at any moment: nothing here waits for one, and a change that was
begun to be applied is brought to its end by another.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import time
from collections import deque
from typing import Any

from . import file_worker
from .cleaners import Cleaners, Part
from .file_changes import CHANGES
from .frames import FILE_BASE64, FILE_CANCEL, FILE_END, FrameType
from .outbox import Outbox

APPLY_SECONDS = 60.0
"""What is not applied by then is given up: nothing else begins while it is."""
APPLY_TRIES = 3
JOBS_LIMIT = 64
SAID_BYTES = 16 << 10
"""The longest that a worker says beside data."""


class Job:
    """One piece of work."""

    def __init__(self, number: int, fields: dict[str, Any]) -> None:
        self.number = number
        """The host's name for it; -1 once its host is gone."""
        self.fields = fields
        self.token = os.urandom(8).hex()
        self.credit = int(fields["window"])
        """How many bytes more it may say until the host has taken some."""
        self.outgoing: deque[bytes] = deque()
        self.tries = 0
        self.deadline = float("inf")
        self.pid = -1
        """Its worker's, until that was reaped: then another process may be given the number."""
        self.connection: socket.socket | None = None

    def start(self, *, resume: bool = False) -> None:
        """Give it a worker."""
        self.pid, self.connection = file_worker.start(self.fields, self.token, resume=resume)

    @property
    def changes_something(self) -> bool:
        """Whether it is a change."""
        return self.fields["work"] in CHANGES

    def wants(self) -> tuple[int, int] | None:
        """What to wait for, as `select.poll` has it."""
        mask = (select.POLLIN if self.credit > 0 else 0) | (select.POLLOUT if self.outgoing else 0)
        return None if self.connection is None or not mask else (self.connection.fileno(), mask)

    def feed(self) -> None:
        """Send it what can be sent without waiting."""
        while self.outgoing and self.connection is not None:
            try:
                self.connection.send(self.outgoing[0])
            except BlockingIOError:
                return
            except OSError:  # it is dead, which is heard next
                self.outgoing.clear()
                return
            self.outgoing.popleft()

    def kill(self) -> None:
        """End its worker."""
        self.let_go()
        if self.pid > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def let_go(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class FileJobs:
    """All of them. Changes are applied one at a time, in the order of the log."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._jobs: dict[int, Job] = {}
        self._to_apply: deque[Job] = deque()
        """The first is being applied."""
        self._pids: set[int] = set()
        self._cleaners = Cleaners()

    @property
    def pids(self) -> set[int]:
        """Processes that are no background work of the user's."""
        return self._pids | self._cleaners.pids

    @property
    def are_applying(self) -> bool:
        """Whether a change is under way: what comes behind it in the log waits."""
        return bool(self._to_apply)

    @property
    def deadline(self) -> float:
        """When to look again though nobody has said anything."""
        applied_by = self._to_apply[0].deadline if self._to_apply else float("inf")
        return min(applied_by, self._cleaners.deadline)

    # What the host says.

    def open(self, number: int, fields: dict[str, Any]) -> None:
        """Begin some work."""
        job = Job(number, fields)
        if len(self._jobs) >= JOBS_LIMIT:
            self._end(job, _failure("too much work on files at once"))
            return
        try:
            self._start(job)
        except OSError as error:
            self._end(job, _failure(f"no process could be started for it: {error}"))
            return
        self._jobs[number] = job

    def data(self, number: int, body: bytes) -> None:
        """A piece of a change's body, its end, or the end of the host's interest."""
        job = self._jobs.get(number)
        if job is None or job in self._to_apply:
            return
        flags, piece = body[0], body[1:]
        if flags & FILE_CANCEL:
            del self._jobs[number]
            self._give_up(job)
        elif flags & FILE_END:
            job.outgoing.append(file_worker.FINISH)
        else:
            job.outgoing.append(file_worker.DATA + (base64.b64decode(piece) if flags & FILE_BASE64 else piece))

    def more(self, number: int, taken: int) -> None:
        """The host has taken so many bytes."""
        job = self._jobs.get(number)
        if job is not None:
            job.credit += taken

    def apply(self, number: int) -> None:
        """Make a change that is prepared true."""
        job = self._jobs.get(number)
        if job is not None and job not in self._to_apply:
            self._to_apply.append(job)
            if len(self._to_apply) == 1:
                self._apply_next()

    def abandon(self) -> None:
        """Another host: what this one did not ask for ends. What is being applied is in the log, and goes on."""
        for job in list(self._jobs.values()):
            if job not in self._to_apply:
                self._give_up(job)
        self._jobs.clear()
        for job in self._to_apply:
            job.number = -1

    # The supervisor's turn.

    def wants(self) -> list[int]:
        """Descriptors and what to wait for, in turn."""
        some = [want for job in self._all() if (want := job.wants()) is not None]
        return [number for want in some for number in want]

    def serve(self, ready: dict[int, int]) -> None:
        """Do what can be done without waiting."""
        for job in self._all():
            job.feed()
            if job.connection is not None and ready.get(job.connection.fileno(), 0) & ~select.POLLOUT:
                self._hear(job)
        self._cleaners.serve()
        if self._to_apply and time.monotonic() >= self._to_apply[0].deadline:
            job = self._to_apply[0]
            job.kill()
            self._end(job, _failure(f"it took longer than {APPLY_SECONDS:g} s"))

    def reaped(self, pid: int, status: int) -> None:
        """A process has ended; whether it was a worker shows in its connection."""
        self._pids.discard(pid)
        self._cleaners.reaped(pid, status)
        for job in self._all():
            if job.pid == pid:
                job.pid = -1

    def _all(self) -> list[Job]:
        return [*self._jobs.values(), *(job for job in self._to_apply if job.number < 0)]

    def _start(self, job: Job, *, resume: bool = False) -> None:
        job.start(resume=resume)
        self._pids.add(job.pid)

    def _hear(self, job: Job) -> None:
        """Take what a worker says; none of it is believed."""
        while job.connection is not None and job.credit > 0:
            try:
                packet = job.connection.recv(file_worker.PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost(job)
                return
            job.credit -= len(packet)
            kind, body = packet[:1], packet[1:]
            if kind == file_worker.DATA:
                self._say(job, FrameType.FILE_BYTES, body)
            elif kind == file_worker.ENDED and len(body) <= SAID_BYTES:
                job.let_go()
                self._end(job, body)
            elif kind == file_worker.PREPARED and len(body) <= SAID_BYTES:
                job.fields["prepared"] = _prepared(body)
                self._say(job, FrameType.FILE_STATE, kind + b"{}")
            elif kind in (file_worker.INFO, file_worker.TAKEN) and len(body) <= SAID_BYTES:
                self._say(job, FrameType.FILE_STATE, kind + body)

    def _say(self, job: Job, kind: FrameType, body: bytes) -> None:
        if job.number >= 0:
            self._out.say(kind, body, job.number)

    def _end(self, job: Job, body: bytes) -> None:
        """It is over, well or not."""
        job.let_go()
        self._say(job, FrameType.FILE_ENDED, body)
        self._jobs.pop(job.number, None)
        if job in self._to_apply:
            applied = self._to_apply[0] is job
            self._to_apply.remove(job)
            if applied:
                self._apply_next()

    def _apply_next(self) -> None:
        while self._to_apply and self._to_apply[0].connection is None:
            self._end(self._to_apply[0], _failure("its process ended"))
        if self._to_apply:
            job = self._to_apply[0]
            job.deadline = time.monotonic() + APPLY_SECONDS
            job.credit = max(job.credit, SAID_BYTES)
            job.outgoing.append(file_worker.APPLY)
            job.feed()

    def _lost(self, job: Job) -> None:
        """A worker ended without a word: somebody has killed it."""
        job.kill()
        if self._to_apply and self._to_apply[0] is job and job.tries < APPLY_TRIES:
            job.tries += 1
            job.outgoing.clear()
            with contextlib.suppress(OSError):
                self._start(job, resume=True)
                return
        self._clean(job)
        self._end(job, _failure("its process was killed"))

    def _give_up(self, job: Job) -> None:
        job.kill()
        self._clean(job)

    def _clean(self, job: Job) -> None:
        if job.changes_something:
            self._cleaners.start(Part(job.fields, job.token))


def _prepared(body: bytes) -> dict[str, Any] | None:
    """What a worker says that it has prepared, for another that goes on: both have the user's rights and no others."""
    try:
        fields = json.loads(body)
        return {"target": str(fields["target"]), "inode": int(fields["inode"])}
    except (ValueError, TypeError, KeyError, RecursionError):  # a removal prepares nothing
        return None


def _failure(message: str) -> bytes:
    return json.dumps({"error": {"code": "file_failed", "message": message}}).encode()
