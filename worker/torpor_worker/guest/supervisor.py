"""The supervisor: init of a sandbox. It owns the protocol and answers whatever user code does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from typing import Any

from . import channel, frames, handover, processes
from .asks import Asks
from .command import Limits
from .commands import Commands
from .completions import Completions
from .file_jobs import FileJobs
from .frames import FrameType
from .host_link import HostLink
from .instructions import Instructions
from .interpreter_link import InterpreterLink
from .outbox import Outbox
from .process_limit import ProcessLimit

IDLE_SECONDS = 60.0
TASKS_PER_PROCESS = 2
"""How many processes and threads commands may start for each process that there may be."""


class Supervisor:
    """One conversation with the host and one interpreter, served by a single thread that never waits for either."""

    def __init__(self, code: str | None, pip: str) -> None:
        """With the digest of its code, as the host told it, and the text of `pip`; `begin` or `succeed` comes next."""
        self._code = code
        self._pip = pip
        self._upgrade: dict[str, Any] | None = None
        """What to become at the end of this turn."""
        self._out = Outbox()
        self._host = HostLink(self._out)
        self._interpreter = InterpreterLink()
        self._completions = Completions(self._out, self._interpreter)
        self._instructions = Instructions(self._out, self._interpreter, self._completions)
        self._files = FileJobs(self._out)
        self._commands = Commands(self._out)
        self._process_limit = ProcessLimit(self._commands, self._interpreter)
        self._asks = Asks(self._out)
        self._last_position = -1
        self._poll = select.poll()
        self._polled: tuple[int, ...] = ()

    def begin(self, load_body: bytes) -> None:
        """Start the interpreter, with the same code."""
        self._prepare()
        processes.install_pip(self._pip, self._asks.listen())
        self._interpreter.start(load_body)

    def _prepare(self) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._host.open()

    def run(self) -> None:
        """Serve for ever."""
        while True:
            try:
                self._turn()
            except Exception:  # the sandbox would die with this process
                message = "The supervisor met an error and went on: " + traceback.format_exc()[-2000:]
                self._out.notice("guest_error", message)
                time.sleep(0.01)

    def _turn(self) -> None:
        ready = self._wait()
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._reap()
        for frame in self._host.read(ready):
            self._handle(frame)
        self._files.serve(ready)
        self._commands.serve(ready)
        self._asks.serve(ready, self._seq_of)
        self._instructions.serve(ready)
        # What comes behind a change of files in the log finds it made.
        if not self._files.are_applying and self._instructions.begin():
            self._process_limit.watch()
        self._instructions.speak()
        self._host.write()
        if self._upgrade is not None:
            self._make_way()

    def _wait(self) -> dict[int, int]:
        now = time.monotonic()
        if now >= self._instructions.nudge_at:
            self._instructions.nudge()
        if now >= self._process_limit.deadline:
            self._process_limit.count(is_active=self._instructions.is_active)
            now = time.monotonic()
        if now >= self._completions.deadline:
            self._instructions.read({})  # it may be there already
            if self._completions.is_asked:
                self._completions.hurry()
        wake_at = min(
            self._instructions.nudge_at,
            self._process_limit.deadline,
            self._completions.deadline,
            self._files.deadline,
            self._host.deadline(now),
            now + IDLE_SECONDS,
        )
        if self._commands.are_waiting:
            wake_at = now
        wants = [self._wake_read, select.POLLIN, *self._host.wants(now)]
        wants += self._instructions.wants()
        wants += self._files.wants()
        wants += self._commands.wants()
        wants += self._asks.wants()
        if tuple(wants) != self._polled:
            self._polled = tuple(wants)
            self._poll = select.poll()
            for fd, events in zip(wants[::2], wants[1::2], strict=True):
                self._poll.register(fd, events)
        return dict(self._poll.poll(max(0.0, wake_at - now) * 1000 + 1))

    # The host's side.

    def _handle(self, frame: frames.Frame) -> None:
        kind, number, body = frame
        if kind in (FrameType.EXECUTE, FrameType.RESEED):
            if number <= self._last_position:
                return
            self._last_position = number
            if kind == FrameType.EXECUTE:
                self._instructions.add(json.loads(body))
            else:
                self._instructions.tell(channel.RESEED, bytes.fromhex(body.decode("ascii")))
        elif kind == FrameType.STDIN:
            if number > self._last_position:
                self._last_position = number
                self._instructions.feed(json.loads(body))
        elif kind in (FrameType.COMMAND, FrameType.COMMAND_INPUT, FrameType.COMMAND_SIGNAL):
            self._handle_command(kind, number, json.loads(body))
        elif kind == FrameType.ACKNOWLEDGE:
            self._out.acknowledge(number)
        elif FrameType.FILE_OPEN <= kind <= FrameType.FILE_APPLY:
            self._handle_files(kind, number, body)
        elif kind == FrameType.PING:
            self._out.say(FrameType.PONG, self._state({"id": number}))
        elif kind == FrameType.INTERRUPT:
            self._instructions.interrupt(number, body.decode("ascii"))
        elif kind == FrameType.HELLO:
            self._hello(json.loads(body))
        elif kind == FrameType.CONFIGURE:
            fields = json.loads(body)
            self._process_limit.change(fields["processes"])
            self._commands.limits = Limits(fields["address_space_bytes"], TASKS_PER_PROCESS * fields["processes"])
            self._instructions.tell(channel.LIMITS, str(fields["address_space_bytes"]).encode())
        elif kind == FrameType.COMPLETE:
            self._completions.ask(number, body, is_free=self._instructions.is_free)
        elif kind == FrameType.REHEARSE:
            if self._interpreter.version >= channel.REHEARSES:
                self._instructions.tell(channel.REHEARSE)
            else:
                self._out.say(FrameType.READY, b"")
        elif kind == FrameType.PACKAGES:
            self._asks.answer(number, json.loads(body))
        elif kind == FrameType.KILL_LARGEST:
            self._kill_largest(json.loads(body))
        elif kind == FrameType.UPGRADE:
            self._upgrade = json.loads(body)

    def _handle_files(self, kind: int, number: int, body: bytes) -> None:
        if kind == FrameType.FILE_OPEN:
            self._files.open(number, json.loads(body))
        elif kind == FrameType.FILE_DATA:
            self._files.data(number, body)
        elif kind == FrameType.FILE_MORE:
            self._files.more(number, json.loads(body))
        elif number > self._last_position:
            self._last_position = number
            self._files.apply(json.loads(body))

    def _handle_command(self, kind: int, position: int, fields: dict[str, Any]) -> None:
        if 0 <= position <= self._last_position:
            return
        self._last_position = max(self._last_position, position)  # a signal from the host itself has none
        if kind == FrameType.COMMAND:
            self._commands.add(fields)
            self._process_limit.watch()
        elif kind == FrameType.COMMAND_INPUT:
            self._commands.feed(fields)
        else:
            self._commands.signal(fields)

    def _hello(self, fields: dict[str, object]) -> None:
        self._files.abandon()
        self._out.acknowledge(int(str(fields["seen"])))
        nonce = bytes.fromhex(str(fields["nonce"]))
        self._out.begin_again(nonce, FrameType.STATE, self._state({"code": self._code}))
        self._asks.begin_again(host_answers=bool(fields.get("packages")))

    def _seq_of(self, session: int) -> int:
        """What runs in a session: a command, or else what the interpreter runs, or ran last."""
        command = self._commands.seq_of(session)
        return self._instructions.last_seq if command is None else command

    def _state(self, more: dict[str, object]) -> bytes:
        state = {
            "last_position": self._last_position,
            "running": self._instructions.running,
            "background": self._instructions.has_background(self._files.pids),
            "ready": self._instructions.is_ready,
            "running_seconds": self._instructions.running_seconds,
            "applying": self._files.are_applying,
            "commands": self._commands.running,
        }
        return json.dumps(state | more).encode()

    # Deaths and limits.

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._files.reaped(pid, status)
            if pid == self._interpreter.pid:
                self._instructions.died(status)
            else:
                self._commands.reaped(pid, status)

    def _kill_largest(self, reason: str) -> None:
        pid = processes.largest()
        if pid is None:
            return
        if pid == self._interpreter.pid:
            self._interpreter.kill(reason)
        else:
            self._commands.blame(pid, reason)
            processes.kill(pid)

    # The successor.

    def _make_way(self) -> None:
        """Become the code that the host has sent; if that cannot be, say why and go on."""
        load, self._upgrade = self._upgrade or {}, None
        if self._files.are_applying:
            self._tell_code("files are being changed")
            return
        self._files.abandon()
        try:
            fields = self._handed_over()
            problem = handover.rehearse(load, fields)
            if problem is None:
                parts = self._interpreter, self._commands, self._asks, self._instructions
                handover.become(load, fields, [fd for part in parts for fd in part.fds])
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        self._tell_code(problem)

    def _tell_code(self, problem: str | None) -> None:
        body = {"code": self._code, "problem": problem}
        self._out.say(FrameType.UPGRADED, json.dumps(body).encode())

    def _handed_over(self) -> dict[str, Any]:
        commands, instructions = self._commands.handed_over(), self._instructions.handed_over()
        return {
            "format": handover.format_of(commands=bool(commands), stdin=bool(instructions["inputs"])),
            "commands": commands,
            "command_limits": self._commands.limits,
            **self._host.handed_over(),
            **self._interpreter.handed_over(),
            **instructions,
            **self._process_limit.handed_over(),
            "out": self._out.handed_over(),
            "last_position": self._last_position,
            "asks": self._asks.handed_over(),
        }

    def take_over(self, fields: dict[str, Any]) -> None:
        """Take what the predecessor had, without touching a descriptor."""
        handover.check(fields)
        self._host.take_over(fields)
        self._interpreter.take_over(fields)
        self._instructions.take_over(fields)
        self._process_limit.take_over(fields)
        self._out.take_over(fields["out"])
        self._last_position = fields["last_position"]
        self._commands.take_over(fields.get("commands", []))
        self._commands.limits = Limits(*fields.get("command_limits", ()))

    def succeed(self, fields: dict[str, Any]) -> None:
        """Go on where the predecessor was, after `take_over`."""
        handover.take_stdin(fields)
        self._prepare()
        self._interpreter.open(fields)
        self._commands.keep_to_themselves()
        if "asks" in fields:
            self._asks.take_over(fields["asks"])
        else:
            processes.install_pip(self._pip, self._asks.listen())
        self._instructions.keep_to_themselves()
        self._tell_code(None)
        self._reap()  # whoever ended while nobody listened


def main(load_body: bytes) -> None:
    """Be the init of a sandbox; never returns."""
    payload = json.loads(load_body)
    supervisor = Supervisor(payload.get("code"), payload["modules"]["pip_command"])
    fields = payload.get("handover")
    if fields is None:
        supervisor.begin(load_body)
    else:
        supervisor.take_over(fields)
        if payload.get("rehearsal"):
            os._exit(0)
        supervisor.succeed(fields)
    supervisor.run()
