"""The supervisor: init of a sandbox. It owns the protocol and answers whatever user code does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections import deque
from typing import Any

from . import channel, frames, handover, processes
from .asks import Asks
from .command import Limits
from .commands import Commands
from .completions import Completions
from .file_jobs import FileJobs
from .frames import FrameType
from .host_link import HostLink
from .inputs import Inputs
from .interpreter_link import InterpreterLink
from .outbox import Outbox
from .process_limit import ProcessLimit

DRAIN_SECONDS = 0.05
GATHER_BYTES = 4 << 10
NUDGE_SECONDS = 0.02
IDLE_SECONDS = 60.0
TASKS_PER_PROCESS = 2
"""How many processes and threads commands may start for each process that there may be."""

KIND_OF_MESSAGE = {channel.STDOUT: 0, channel.STDERR: 1, channel.DISPLAY: 2}


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
        self._files = FileJobs(self._out)
        self._commands = Commands(self._out)
        self._process_limit = ProcessLimit(self._commands, self._interpreter)
        self._asks = Asks(self._out)
        self._last_position = -1
        self._waiting: deque[tuple[int | None, list[bytes]]] = deque()
        """For the interpreter, while it runs nothing: seq of an instruction (else None), and packets."""
        self._inputs = Inputs(self._out)
        self._running: int | None = None
        self._running_since = 0.0
        self._last_seq = -1
        self._said_bytes = 0
        """Output under the last seq, since it was begun."""
        self._background = 0
        self._ready = False
        self._nudge_at = float("inf")
        self._garbage_seq: int | None = None
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
                self._out.keep(FrameType.NOTICE, json.dumps({"code": "guest_error", "message": message}).encode())
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
        self._inputs.serve(ready)
        self._serve_interpreter(ready)
        self._host.write()
        if self._upgrade is not None:
            self._make_way()

    def _wait(self) -> dict[int, int]:
        now = time.monotonic()
        if now >= self._nudge_at:
            self._nudge_at = float("inf")
            self._interpreter.signal(signal.SIGURG)
        if now >= self._process_limit.deadline:
            self._process_limit.count(is_active=self._running is not None or bool(self._background))
            now = time.monotonic()
        if now >= self._completions.deadline:
            self._hurry_completion()
        wake_at = min(
            self._nudge_at,
            self._process_limit.deadline,
            self._completions.deadline,
            self._files.deadline,
            self._host.deadline(now),
            now + IDLE_SECONDS,
        )
        if self._commands.are_waiting:
            wake_at = now
        wants = [self._wake_read, select.POLLIN, *self._host.wants(now)]
        wants += self._interpreter.wants(has_room=self._out.has_room)
        wants += self._files.wants()
        wants += self._commands.wants()
        wants += self._asks.wants()
        wants += self._inputs.wants()
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
                fields = json.loads(body)
                code = fields["code"].encode("utf-8", "surrogatepass")
                flags = channel.REPLAYING if fields["replaying"] else 0
                packets = channel.packets(channel.EXECUTE, flags, fields["seq"], code)
                self._waiting.append(
                    (fields["seq"], [*self._inputs.begin(fields, self._interpreter.version), *packets])
                )
            else:
                self._waiting.append((None, channel.packets(channel.RESEED, 0, 0, bytes.fromhex(body.decode("ascii")))))
        elif kind == FrameType.STDIN:
            if number > self._last_position:
                self._last_position = number
                self._inputs.feed(json.loads(body))
        elif kind in (FrameType.COMMAND, FrameType.COMMAND_INPUT, FrameType.COMMAND_SIGNAL):
            self._handle_command(kind, number, json.loads(body))
        elif kind == FrameType.ACKNOWLEDGE:
            self._out.acknowledge(number)
        elif FrameType.FILE_OPEN <= kind <= FrameType.FILE_APPLY:
            self._handle_files(kind, number, body)
        elif kind == FrameType.PING:
            self._out.say(FrameType.PONG, self._state({"id": number}))
        elif kind == FrameType.INTERRUPT:
            self._interrupt(number, body.decode("ascii"))
        elif kind == FrameType.HELLO:
            self._hello(json.loads(body))
        elif kind == FrameType.CONFIGURE:
            fields = json.loads(body)
            self._process_limit.change(fields["processes"])
            self._commands.limits = Limits(fields["address_space_bytes"], TASKS_PER_PROCESS * fields["processes"])
            address_space = str(fields["address_space_bytes"]).encode()
            self._waiting.append((None, channel.packets(channel.LIMITS, 0, 0, address_space)))
        elif kind == FrameType.COMPLETE:
            self._completions.ask(number, body, is_free=self._running is None and not self._waiting)
        elif kind == FrameType.REHEARSE:
            if self._interpreter.version >= channel.REHEARSES:
                self._waiting.append((None, channel.packets(channel.REHEARSE, 0, 0, b"")))
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
        if command is not None:
            return command
        return self._last_seq if self._running is None else self._running

    def _state(self, more: dict[str, object]) -> bytes:
        state = {
            "last_position": self._last_position,
            "running": self._running,
            "background": self._has_background(),
            "ready": self._ready or self._interpreter.pid is None,
            "running_seconds": 0.0 if self._running is None else time.monotonic() - self._running_since,
            "applying": self._files.are_applying,
            "commands": self._commands.running,
        }
        return json.dumps(state | more).encode()

    # The interpreter's side.

    def _serve_interpreter(self, ready: dict[int, int]) -> None:
        link = self._interpreter
        if link.pid is None:
            return
        if (connection := link.accept(ready)) is not None:
            self._drain_pipes()
            link.adopt(connection)
        elif link.is_heard(ready):
            self._read_interpreter(ready)
        for kind, fd in enumerate(link.pipes):
            if fd in ready and fd in link.pipes:
                self._read_pipe(fd, kind)
        # What comes behind a change of files in the log finds it made.
        free = not self._completions.is_asked and not self._files.are_applying
        while self._waiting and self._running is None and free:
            seq, packets = self._waiting.popleft()
            link.say(packets)
            if seq is not None:
                self._running = self._last_seq = seq
                self._running_since = time.monotonic()
                self._said_bytes = 0
                self._process_limit.watch()
        link.feed(self._inputs.of(self._running))

    def _read_interpreter(self, ready: dict[int, int]) -> None:
        first = True
        try:
            while self._out.has_room:
                message = self._interpreter.receive()
                if message is not None:
                    # With the first packet, `ready` knows what the pipes held when it was sent.
                    self._take(message, ready if first else None)
                    if message.type == channel.RESULT:
                        return
                first = False
        except BlockingIOError:
            return
        except channel.ChannelError as error:
            self._garbage(str(error))
        except OSError:
            self._interpreter.disconnect()

    def _take(self, message: channel.Message, ready: dict[int, int] | None) -> None:
        kind = KIND_OF_MESSAGE.get(message.type)
        if kind is not None:
            self._output(kind, message.body)
            if message.flags & channel.BURST and self._nudge_at == float("inf"):
                self._nudge_at = time.monotonic() + NUDGE_SECONDS
        elif message.type == channel.RESULT:
            self._result(message, ready)
        elif message.type == channel.NOTICE:
            if (said := channel.notice(message.body)) is None:
                self._garbage("a notice that is none")
            else:
                self._out.keep(FrameType.NOTICE, json.dumps({"code": "guest_repaired", "message": said}).encode())
        elif message.type == channel.COMPLETION:
            self._completions.answered(message.seq, message.body)
        else:
            self._ready = True
            self._out.say(FrameType.READY, b"")

    def _result(self, message: channel.Message, ready: dict[int, int] | None) -> None:
        if message.seq != self._running:
            self._garbage("a result that nobody waits for")
            return
        if ready is None or any(fd in ready for fd in self._interpreter.pipes):
            self._drain_pipes()
        self._background = message.flags & (channel.TASKS | channel.THREADS)
        self._running = None
        self._inputs.end(message.seq)
        self._nudge_at = float("inf")
        self._out.keep(FrameType.RESULT, frames.RESULT.pack(message.seq) + message.body)

    def _garbage(self, what: str) -> None:
        if self._garbage_seq != self._last_seq:
            self._garbage_seq = self._last_seq
            message = f"What user code wrote into the machine's own connection was ignored: {what}."
            self._out.keep(FrameType.NOTICE, json.dumps({"code": "guest_garbage", "message": message}).encode())

    def _output(self, kind: int, data: bytes) -> None:
        flags = frames.HAS_OFFSET | (frames.BACKGROUND if self._running is None else 0)
        head = frames.OUTPUT.pack(self._last_seq, kind, flags) + frames.OFFSET.pack(self._said_bytes)
        self._said_bytes += len(data)
        urgent = self._running is None or len(data) > GATHER_BYTES
        if not urgent:
            self._out.gather()
        self._out.keep(FrameType.OUTPUT, head + data, urgent=urgent)

    def _read_pipe(self, fd: int, kind: int) -> bool:
        data = self._interpreter.read_pipe(fd)
        if data:
            self._output(kind, data)
        return bool(data)

    def _drain_pipes(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        for kind, fd in enumerate(self._interpreter.pipes):
            while self._read_pipe(fd, kind) and time.monotonic() < deadline:
                pass

    def _interrupt(self, seq: int, step: str) -> None:
        link = self._interpreter
        if link.is_connected:
            self._read_interpreter({})  # it may have finished already
        if self._running != seq:
            return
        if step == "kill":
            link.kill("killed, because it did not stop when it was interrupted")
        else:
            link.signal(signal.SIGCONT)
            link.signal(signal.SIGINT)

    def _hurry_completion(self) -> None:
        if self._interpreter.is_connected:
            self._read_interpreter({})  # it may be there already
        if self._completions.is_asked:
            self._completions.hurry()

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
                self._buried(status)
            else:
                self._commands.reaped(pid, status)

    def _buried(self, status: int) -> None:
        with contextlib.suppress(channel.ChannelError, OSError):
            while self._interpreter.is_connected:
                message = self._interpreter.receive()
                if message is not None:
                    self._take(message, None)
        self._drain_pipes()
        reason = self._interpreter.bury(status)
        self._out.keep(FrameType.DIED, json.dumps({"seq": self._running, "reason": reason}).encode())
        self._running = None
        self._inputs.close()
        self._nudge_at = float("inf")
        self._completions.end()

    def _kill_largest(self, reason: str) -> None:
        pid = processes.largest()
        if pid is None:
            return
        if pid == self._interpreter.pid:
            self._interpreter.kill(reason)
        else:
            self._commands.blame(pid, reason)
            processes.kill(pid)

    def _has_background(self) -> bool:
        interpreter = self._interpreter.pid
        if interpreter is None:
            return False
        if self._background & channel.TASKS:
            return True
        if self._background & channel.THREADS and processes.has_threads(interpreter):
            return True
        return any(pid != interpreter and pid not in self._files.pids for pid in processes.of_user())

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
                parts = self._interpreter, self._commands, self._asks, self._inputs
                handover.become(load, fields, [fd for part in parts for fd in part.fds])
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        self._tell_code(problem)

    def _tell_code(self, problem: str | None) -> None:
        body = {"code": self._code, "problem": problem}
        self._out.say(FrameType.UPGRADED, json.dumps(body).encode())

    def _handed_over(self) -> dict[str, Any]:
        commands, inputs = self._commands.handed_over(), self._inputs.handed_over()
        return {
            "format": handover.format_of(commands=bool(commands), stdin=bool(inputs)),
            "commands": commands,
            "inputs": inputs,
            "command_limits": self._commands.limits,
            **self._host.handed_over(),
            **self._interpreter.handed_over(),
            **self._process_limit.handed_over(),
            "out": self._out.handed_over(),
            "last_position": self._last_position,
            "waiting": [[seq, list(map(handover.pack, packets))] for seq, packets in self._waiting],
            "running": self._running,
            "running_since": self._running_since,
            "last_seq": self._last_seq,
            "said_bytes": self._said_bytes,
            "background": self._background,
            "ready": self._ready,
            "garbage_seq": self._garbage_seq,
            "asks": self._asks.handed_over(),
        }

    def take_over(self, fields: dict[str, Any]) -> None:
        """Take what the predecessor had, without touching a descriptor."""
        handover.check(fields)
        self._host.take_over(fields)
        self._interpreter.take_over(fields)
        self._process_limit.take_over(fields)
        self._out.take_over(fields["out"])
        self._last_position = fields["last_position"]
        self._waiting.extend((seq, list(map(handover.unpack, packets))) for seq, packets in fields["waiting"])
        self._running = fields["running"]
        self._running_since = fields["running_since"]
        self._last_seq = fields["last_seq"]
        self._said_bytes = fields["said_bytes"]
        self._background = fields["background"]
        self._ready = fields["ready"]
        self._garbage_seq = fields["garbage_seq"]
        self._nudge_at = time.monotonic()
        self._commands.take_over(fields.get("commands", []))
        self._commands.limits = Limits(*fields.get("command_limits", ()))
        self._inputs.take_over(fields.get("inputs", []))

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
        self._inputs.keep_to_themselves()
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
