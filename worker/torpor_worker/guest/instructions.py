"""Instructions: what waits for the interpreter, which one it runs, and what it says; it is given one at a time."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import deque
from typing import Any

from . import channel, frames, handover, processes
from .completions import Completions
from .frames import FrameType
from .inputs import Inputs
from .interpreter_link import InterpreterLink
from .outbox import Outbox

DRAIN_SECONDS = 0.05
GATHER_BYTES = 4 << 10
NUDGE_SECONDS = 0.02

KIND_OF_MESSAGE = {channel.STDOUT: 0, channel.STDERR: 1, channel.DISPLAY: 2}


class Instructions:
    """All that the interpreter is told and says. Nothing here waits for it, and nothing that it says is believed."""

    def __init__(self, out: Outbox, link: InterpreterLink, completions: Completions) -> None:
        self._out = out
        self._link = link
        self._completions = completions
        self._inputs = Inputs(out)
        self._waiting: deque[tuple[int | None, list[bytes]]] = deque()
        """For the interpreter, while it runs nothing: seq of an instruction (else None), and packets."""
        self.running: int | None = None
        """The seq of the one that runs."""
        self._running_since = 0.0
        self.last_seq = -1
        """Of the one that runs, or else ran last."""
        self._said_bytes = 0
        """Output under the last seq, since it was begun."""
        self._background = 0
        self._ready = False
        self._garbage_seq: int | None = None
        self.nudge_at = float("inf")
        """When to `nudge`."""

    # What the host says.

    def add(self, fields: dict[str, Any]) -> None:
        """An instruction came from the host; it is begun in its turn."""
        given = self._inputs.begin(fields, self._link.version)
        code = fields["code"].encode("utf-8", "surrogatepass")
        flags = channel.REPLAYING if fields["replaying"] else 0
        self._waiting.append((fields["seq"], [*given, *channel.packets(channel.EXECUTE, flags, fields["seq"], code)]))

    def tell(self, kind: int, body: bytes = b"") -> None:
        """Something else for the interpreter, in its turn."""
        self._waiting.append((None, channel.packets(kind, 0, 0, body)))

    def feed(self, fields: dict[str, Any]) -> None:
        """More for an instruction to read."""
        self._inputs.feed(fields)

    def interrupt(self, seq: int, step: str) -> None:
        """Interrupt it, if it runs; the step `kill` ends the interpreter."""
        self.read({})  # it may have finished already
        if self.running != seq:
            return
        if step == "kill":
            self._link.kill("killed, because it did not stop when it was interrupted")
        else:
            self._link.signal(signal.SIGCONT)
            self._link.signal(signal.SIGINT)

    # What is known of them.

    @property
    def running_seconds(self) -> float:
        """For how long one has run."""
        return 0.0 if self.running is None else time.monotonic() - self._running_since

    @property
    def is_ready(self) -> bool:
        """Whether the interpreter takes instructions, or never will."""
        return self._ready or self._link.pid is None

    @property
    def is_free(self) -> bool:
        """Whether none runs and nothing waits."""
        return self.running is None and not self._waiting

    @property
    def is_active(self) -> bool:
        """Whether one runs, or has left tasks or threads."""
        return self.running is not None or bool(self._background)

    def has_background(self, others: set[int]) -> bool:
        """Whether anything of the user's is there besides the interpreter's first thread and these processes."""
        interpreter = self._link.pid
        if interpreter is None:
            return False
        if self._background & channel.TASKS:
            return True
        if self._background & channel.THREADS and processes.has_threads(interpreter):
            return True
        return any(pid != interpreter and pid not in others for pid in processes.of_user())

    # The supervisor's turn.

    def wants(self) -> list[int]:
        """Descriptors and what to wait for at each, one after the other."""
        return self._link.wants(has_room=self._out.has_room) + self._inputs.wants()

    def serve(self, ready: dict[int, int]) -> None:
        """One turn: hear what has come."""
        self._inputs.serve(ready)
        link = self._link
        if (connection := link.accept(ready)) is not None:
            self._drain_pipes()
            link.adopt(connection)
        elif link.is_heard(ready):
            self.read(ready)
        for kind, fd in enumerate(link.pipes):
            if fd in ready and fd in link.pipes:
                self._read_pipe(fd, kind)

    def begin(self) -> bool:
        """Begin the next one with what came before it, unless the interpreter is busy; whether one was begun."""
        if self.running is not None or self._completions.is_asked or self._link.pid is None:
            return False
        while self._waiting:
            seq, packets = self._waiting.popleft()
            self._link.say(packets)
            if seq is not None:
                self.running = self.last_seq = seq
                self._running_since = time.monotonic()
                self._said_bytes = 0
                return True
        return False

    def speak(self) -> None:
        """Send the interpreter what can be sent without waiting."""
        self._link.feed(self._inputs.of(self.running))

    def nudge(self) -> None:
        """Have the interpreter say the output that it holds back."""
        self.nudge_at = float("inf")
        self._link.signal(signal.SIGURG)

    def read(self, ready: dict[int, int]) -> None:
        """Hear what the interpreter has said, up to a result."""
        if not self._link.is_connected:
            return
        first = True
        try:
            while self._out.has_room:
                message = self._link.receive()
                if message is not None:
                    # With the first packet, `ready` knows what the pipes held when it was sent.
                    self._hear(message, ready if first else None)
                    if message.type == channel.RESULT:
                        return
                first = False
        except BlockingIOError:
            return
        except channel.ChannelError as error:
            self._garbage(str(error))
        except OSError:
            self._link.disconnect()

    def died(self, status: int) -> None:
        """The interpreter has ended, with this wait status: tell what it has said, and of its end."""
        with contextlib.suppress(channel.ChannelError, OSError):
            while self._link.is_connected:
                message = self._link.receive()
                if message is not None:
                    self._hear(message, None)
        self._drain_pipes()
        reason = self._link.bury(status)
        self._out.keep(FrameType.DIED, json.dumps({"seq": self.running, "reason": reason}).encode())
        self.running = None
        self._inputs.close()
        self.nudge_at = float("inf")
        self._completions.end()

    def _hear(self, message: channel.Message, ready: dict[int, int] | None) -> None:
        kind = KIND_OF_MESSAGE.get(message.type)
        if kind is not None:
            self._output(kind, message.body)
            if message.flags & channel.BURST and self.nudge_at == float("inf"):
                self.nudge_at = time.monotonic() + NUDGE_SECONDS
        elif message.type == channel.RESULT:
            self._result(message, ready)
        elif message.type == channel.NOTICE:
            if (said := channel.notice(message.body)) is None:
                self._garbage("a notice that is none")
            else:
                self._out.notice("guest_repaired", said)
        elif message.type == channel.COMPLETION:
            self._completions.answered(message.seq, message.body)
        else:
            self._ready = True
            self._out.say(FrameType.READY, b"")

    def _result(self, message: channel.Message, ready: dict[int, int] | None) -> None:
        if message.seq != self.running:
            self._garbage("a result that nobody waits for")
            return
        if ready is None or any(fd in ready for fd in self._link.pipes):
            self._drain_pipes()
        self._background = message.flags & (channel.TASKS | channel.THREADS)
        self.running = None
        self._inputs.end(message.seq)
        self.nudge_at = float("inf")
        self._out.keep(FrameType.RESULT, frames.RESULT.pack(message.seq) + message.body)

    def _garbage(self, what: str) -> None:
        if self._garbage_seq != self.last_seq:
            self._garbage_seq = self.last_seq
            message = f"What user code wrote into the machine's own connection was ignored: {what}."
            self._out.notice("guest_garbage", message)

    def _output(self, kind: int, data: bytes) -> None:
        flags = frames.HAS_OFFSET | (frames.BACKGROUND if self.running is None else 0)
        head = frames.OUTPUT.pack(self.last_seq, kind, flags) + frames.OFFSET.pack(self._said_bytes)
        self._said_bytes += len(data)
        urgent = self.running is None or len(data) > GATHER_BYTES
        if not urgent:
            self._out.gather()
        self._out.keep(FrameType.OUTPUT, head + data, urgent=urgent)

    def _read_pipe(self, fd: int, kind: int) -> bool:
        data = self._link.read_pipe(fd)
        if data:
            self._output(kind, data)
        return bool(data)

    def _drain_pipes(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        for kind, fd in enumerate(self._link.pipes):
            while self._read_pipe(fd, kind) and time.monotonic() < deadline:
                pass

    # The successor.

    @property
    def fds(self) -> list[int]:
        """Every descriptor that belongs to them."""
        return self._inputs.fds

    def handed_over(self) -> dict[str, Any]:
        """For the supervisor's successor."""
        return {
            "inputs": self._inputs.handed_over(),
            "waiting": [[seq, list(map(handover.pack, packets))] for seq, packets in self._waiting],
            "running": self.running,
            "running_since": self._running_since,
            "last_seq": self.last_seq,
            "said_bytes": self._said_bytes,
            "background": self._background,
            "ready": self._ready,
            "garbage_seq": self._garbage_seq,
        }

    def take_over(self, fields: dict[str, Any]) -> None:
        """Begin with what another one had, without touching a descriptor."""
        self._inputs.take_over(fields.get("inputs", []))
        self._waiting.extend((seq, list(map(handover.unpack, packets))) for seq, packets in fields["waiting"])
        self.running = fields["running"]
        self._running_since = fields["running_since"]
        self.last_seq = fields["last_seq"]
        self._said_bytes = fields["said_bytes"]
        self._background = fields["background"]
        self._ready = fields["ready"]
        self._garbage_seq = fields["garbage_seq"]
        self.nudge_at = time.monotonic()

    def keep_to_themselves(self) -> None:
        """See to it that no child gets a descriptor that was handed over."""
        self._inputs.keep_to_themselves()
