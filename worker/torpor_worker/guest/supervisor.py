"""The supervisor: init of a sandbox. It owns the protocol and answers whatever user code does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections import deque

from . import channel, frames, processes
from .frames import FrameType

WINDOW_BYTES = 1 << 20
READ_BYTES = 256 << 10
PIPE_READ_BYTES = 64 << 10
ABSENT_SECONDS = 0.02
"""How long to look away from a stream whose other end is gone."""
DRAIN_SECONDS = 0.05

STDIN, STDOUT = 0, 1
KIND_OF_MESSAGE = {channel.STDOUT: 0, channel.STDERR: 1, channel.DISPLAY: 2}


class Supervisor:
    """One conversation with the host and one interpreter, served by a single thread that never waits for either."""

    def __init__(self, load_body: bytes) -> None:
        self._reader = frames.FrameReader(frames.HOST_MARKER, restarts=True)
        self._out: deque[bytes] = deque()
        self._kept: deque[tuple[int, int]] = deque()
        """Serial and length of each frame that is not acknowledged."""
        self._kept_frames: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._serial = 0
        self._last_position = -1
        self._waiting: deque[list[bytes]] = deque()
        """Instructions and reseeds for the interpreter, each a list of packets; sent while it runs nothing."""
        self._waiting_seqs: deque[int | None] = deque()
        self._to_interpreter: deque[bytes] = deque()
        self._running: int | None = None
        self._last_seq = -1
        self._tasks = False
        self._ready = False
        self._kill_reason: str | None = None
        self._absent_until = 0.0
        self._process_limit = 256
        self._count_at = 0.0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        os.set_blocking(STDIN, False)
        os.set_blocking(STDOUT, False)
        self._assembler = channel.Assembler()
        self._interpreter: processes.Interpreter | None = processes.start_interpreter(load_body)
        self._dead = False

    def run(self) -> None:
        """Serve for ever."""
        while True:
            self._turn()

    def _turn(self) -> None:
        poll = select.poll()
        present = time.monotonic() >= self._absent_until
        if present:
            poll.register(STDIN, select.POLLIN)
            if self._out:
                poll.register(STDOUT, select.POLLOUT)
        poll.register(self._wake_read, select.POLLIN)
        interpreter = self._interpreter
        if interpreter is not None:
            wants = select.POLLOUT if self._to_interpreter else 0
            if self._kept_bytes < WINDOW_BYTES:
                wants |= select.POLLIN
                for fd in interpreter.pipes:
                    poll.register(fd, select.POLLIN)
            if wants:
                poll.register(interpreter.socket_fd, wants)
        ready = dict(poll.poll(500.0 if present else ABSENT_SECONDS * 1000))
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._reap()
        if STDIN in ready:
            self._read_host()
        if interpreter is not None and interpreter is self._interpreter:
            if interpreter.socket_fd in ready:
                self._read_interpreter(interpreter)
            for kind, fd in enumerate(list(interpreter.pipes)):
                if fd in ready:
                    self._read_pipe(interpreter, fd, kind)
        self._feed_interpreter()
        self._write_host()
        if time.monotonic() >= self._count_at:
            self._count_processes()

    # The host's side.

    def _read_host(self) -> None:
        try:
            data = os.read(STDIN, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._absent_until = time.monotonic() + ABSENT_SECONDS
            return
        try:
            arrived = self._reader.feed(data)
        except frames.ProtocolError:
            return  # the next hello starts afresh
        for frame in arrived:
            self._handle(frame)

    def _handle(self, frame: frames.Frame) -> None:
        kind, position, body = frame
        if kind == FrameType.EXECUTE or kind == FrameType.RESEED:
            if position <= self._last_position:
                return
            self._last_position = position
            if kind == FrameType.EXECUTE:
                fields = json.loads(body)
                seq = fields["seq"]
                code = fields["code"].encode("utf-8", "surrogatepass")
                flags = channel.REPLAYING if fields["replaying"] else 0
                self._waiting.append(channel.packets(channel.EXECUTE, flags, seq, code))
                self._waiting_seqs.append(seq)
            else:
                self._waiting.append(channel.packets(channel.RESEED, 0, 0, bytes.fromhex(body.decode("ascii"))))
                self._waiting_seqs.append(None)
        elif kind == FrameType.ACKNOWLEDGE:
            self._acknowledge(position)
        elif kind == FrameType.PING:
            self._answer(FrameType.PONG, {"id": position})
        elif kind == FrameType.INTERRUPT:
            self._interrupt(position, body.decode("ascii"))
        elif kind == FrameType.HELLO:
            self._hello(json.loads(body))
        elif kind == FrameType.CONFIGURE:
            self._configure(json.loads(body))
        elif kind == FrameType.KILL_LARGEST:
            self._kill_largest(json.loads(body))

    def _hello(self, fields: dict[str, object]) -> None:
        self._out.clear()
        self._acknowledge(int(str(fields["seen"])))
        self._out.append(bytes.fromhex(str(fields["nonce"])))
        self._answer(FrameType.STATE, {})
        self._out.extend(self._kept_frames.values())

    def _answer(self, kind: FrameType, more: dict[str, object]) -> None:
        state = {
            "last_position": self._last_position,
            "running": self._running,
            "background": self._tasks or processes.has_background(self._interpreter),
            "ready": self._ready or self._dead,
        }
        self._out.append(frames.encode(kind, -1, json.dumps(state | more).encode()))

    def _acknowledge(self, serial: int) -> None:
        while self._kept and self._kept[0][0] <= serial:
            number, length = self._kept.popleft()
            del self._kept_frames[number]
            self._kept_bytes -= length

    def _emit(self, kind: FrameType, body: bytes) -> None:
        frame = frames.encode(kind, self._serial, body)
        self._kept.append((self._serial, len(frame)))
        self._kept_frames[self._serial] = frame
        self._kept_bytes += len(frame)
        self._serial += 1
        self._out.append(frame)

    def _write_host(self) -> None:
        out = self._out
        while out:
            data = out[0] if len(out) == 1 else b"".join(out)
            try:
                written = os.write(STDOUT, data)
            except BlockingIOError:
                written = 0
            except OSError:
                self._absent_until = time.monotonic() + ABSENT_SECONDS
                written = 0
            if written == len(data):
                out.clear()
                return
            if len(out) > 1 or written:
                out.clear()
                out.append(data[written:])
            if written == 0:
                return

    # The interpreter's side.

    def _feed_interpreter(self) -> None:
        interpreter = self._interpreter
        while self._waiting and self._running is None and interpreter is not None:
            self._to_interpreter.extend(self._waiting.popleft())
            seq = self._waiting_seqs.popleft()
            if seq is not None:
                self._running = self._last_seq = seq
        while self._to_interpreter and interpreter is not None:
            try:
                interpreter.socket.send(self._to_interpreter[0])
            except BlockingIOError:
                return
            except OSError:
                self._to_interpreter.clear()
                return
            self._to_interpreter.popleft()

    def _read_interpreter(self, interpreter: processes.Interpreter) -> None:
        try:
            while self._kept_bytes < WINDOW_BYTES:
                packet = interpreter.socket.recv(channel.PACKET.size + channel.PACKET_BYTES)
                if not packet:
                    raise channel.ChannelError("its connection was closed")
                message = self._assembler.add(packet)
                if message is not None:
                    self._take(interpreter, message)
        except BlockingIOError:
            return
        except (channel.ChannelError, OSError) as error:
            self._reap()
            if self._interpreter is interpreter:
                self._kill(f"killed, because {error}")
                interpreter.disconnect()

    def _take(self, interpreter: processes.Interpreter, message: channel.Message) -> None:
        kind = KIND_OF_MESSAGE.get(message.type)
        if kind is not None:
            self._output(kind, message.body)
        elif message.type == channel.RESULT:
            if message.seq != self._running:
                raise channel.ChannelError("it sent a result that nobody waits for")
            self._drain_pipes(interpreter)
            self._tasks = bool(message.flags & channel.TASKS)
            self._running = None
            self._emit(FrameType.RESULT, frames.RESULT.pack(message.seq) + message.body)
        elif message.type == channel.NOTICE:
            self._emit(FrameType.NOTICE, message.body)
        elif message.type == channel.READY:
            self._ready = True
            self._out.append(frames.encode(FrameType.READY, -1, b""))
        else:
            raise channel.ChannelError("it sent a message of an unknown type")

    def _output(self, kind: int, data: bytes) -> None:
        background = self._running is None
        self._emit(FrameType.OUTPUT, frames.OUTPUT.pack(self._last_seq, kind, background) + data)

    def _read_pipe(self, interpreter: processes.Interpreter, fd: int, kind: int) -> bool:
        try:
            data = os.read(fd, PIPE_READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            interpreter.close_pipe(fd)
            return False
        self._output(kind, data)
        return True

    def _drain_pipes(self, interpreter: processes.Interpreter) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        for kind, fd in enumerate(list(interpreter.pipes)):
            while self._read_pipe(interpreter, fd, kind) and time.monotonic() < deadline:
                pass

    def _interrupt(self, seq: int, step: str) -> None:
        interpreter = self._interpreter
        if interpreter is None:
            return
        self._read_interpreter(interpreter)  # it may have finished already
        if self._running != seq or self._interpreter is not interpreter:
            return
        if step == "kill":
            self._kill("killed, because it did not stop when it was interrupted")
        else:
            interpreter.signal(signal.SIGCONT)
            interpreter.signal(signal.SIGINT)

    def _kill(self, reason: str) -> None:
        if self._interpreter is not None:
            self._kill_reason = self._kill_reason or reason
            self._interpreter.signal(signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._interpreter is not None and pid == self._interpreter.pid:
                self._buried(status)

    def _buried(self, status: int) -> None:
        interpreter = self._interpreter
        assert interpreter is not None
        with contextlib.suppress(channel.ChannelError, OSError):
            while packet := interpreter.socket.recv(channel.PACKET.size + channel.PACKET_BYTES):
                message = self._assembler.add(packet)
                if message is not None:
                    self._take(interpreter, message)
        self._drain_pipes(interpreter)
        reason = self._kill_reason or processes.describe(status)
        self._emit(FrameType.DIED, json.dumps({"seq": self._running, "reason": reason}).encode())
        interpreter.close()
        self._interpreter = None
        self._running = None
        self._dead = True

    # Limits.

    def _configure(self, fields: dict[str, int]) -> None:
        self._process_limit = fields["processes"]
        body = str(fields["address_space_bytes"]).encode()
        self._waiting.append(channel.packets(channel.LIMITS, 0, 0, body))
        self._waiting_seqs.append(None)

    def _kill_largest(self, reason: str) -> None:
        pid = processes.largest()
        if pid is None:
            return
        if self._interpreter is not None and pid == self._interpreter.pid:
            self._kill(reason)
        else:
            processes.kill(pid)

    def _count_processes(self) -> None:
        self._count_at = time.monotonic() + 0.5
        pids = processes.of_user()
        if len(pids) > self._process_limit:
            reason = f"killed, because more than {self._process_limit} processes or threads were running"
            self._kill(reason)
            processes.kill_all_of_user()


def main(load_body: bytes) -> None:
    """Be the init of a sandbox; never returns."""
    Supervisor(load_body).run()
