"""The host's end of the conversation with a guest: two FIFOs, frames, and nothing believed that comes out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.file_link import FileLink
from torpor_worker.files import FileTransfer, FileWork
from torpor_worker.guest import frames
from torpor_worker.guest.frames import FrameType
from torpor_worker.guest_code import GuestCode, own_code
from torpor_worker.nesting import too_deep
from torpor_worker.pace import Pace
from torpor_worker.sandbox import (
    CommandEnded,
    CommandOutput,
    Completion,
    Event,
    GuestNotice,
    GuestState,
    InterpreterDied,
    Limits,
    Output,
    OutputKind,
    PackagesWanted,
    Result,
    SandboxDied,
    SandboxError,
    SandboxLost,
)
from torpor_worker.stdin import Stdin

PING_SECONDS = 5.0
COMPLETE_SECONDS = 5.0
UPGRADE_SECONDS = 60.0
"""It starts Python twice; a guest that has not answered by then is of no use."""
READ_BYTES = 64 << 10
"""What a pipe holds."""
ACKNOWLEDGE_BYTES = 64 << 10
ACKNOWLEDGE_SECONDS = 0.25
"""It only lets the guest forget; a frame of its own would wake the sandbox for that."""
WRITE_SECONDS = 30.0
"""How long a guest may take to read a frame; then it reads nothing any more, and half a frame is in its way."""
HELD_BYTES = 8 << 20
"""Reading stops while events of this size wait for `receive`."""
PACKAGES_NAME = re.compile(r"-?[0-9]{1,19}-[0-9a-f]{16}-[0-9]{1,9}")
NOTICE_CODE = re.compile(r"[a-z_]{1,64}")
NOTICE_CHARACTERS = 4000
RESULT_KEYS = {"value", "data", "error", "runtime_ms"}


class GuestLink:
    """One conversation with one guest, through the FIFOs that are its standard input and output."""

    def __init__(self, stdin_fifo: Path, stdout_fifo: Path) -> None:
        self._stdin_fifo = stdin_fifo
        self._stdout_fifo = stdout_fifo
        self._stdin = -1
        self._stdout = -1
        self._reader = frames.FrameReader(b"", restarts=False)
        self._events: deque[tuple[Event, int, int]] = deque()
        """Event, serial, bytes."""
        self._held_bytes = 0
        self._reading = False
        self._pace = Pace()
        self._pause: asyncio.TimerHandle | None = None
        """It has said so much that it is not heard for a while."""
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._seen = -1
        self._received = -1
        self._wanted = -1
        """The serial up to which `acknowledge` was called."""
        self._acknowledged = -1
        self._settled = -1
        """The serial up to which the guest is known to have heard it."""
        self._unacknowledged_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._lost: SandboxLost | None = None
        self._attached: asyncio.Future[GuestState] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._pings: dict[int, asyncio.Future[GuestState]] = {}
        self._ping = 0
        self._completions: dict[int, asyncio.Future[bytes]] = {}
        self._upgraded: asyncio.Future[str | None] | None = None
        self._files = FileLink(self._send)
        self.code: str | None = None
        """The digest of the guest's code, as it says when it is greeted; None from one that cannot be replaced."""

    async def open(self) -> None:
        """Open both FIFOs; neither waits for the other end."""
        self._stdin = os.open(self._stdin_fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stdout = os.open(self._stdout_fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def load(self, preload: Sequence[str] = (), code: GuestCode | None = None) -> None:
        """Send a new sandbox the guest's code, and the names of modules that it imports before it is ready."""
        body = (code or own_code()).load_body(preload)
        await self._write(frames.HOST_MARKER + frames.encode(FrameType.LOAD, -1, body))

    async def attach(self, timeout_seconds: float = 30) -> GuestState:
        """Greet the guest and wait until its interpreter takes instructions. What it said before is said again.

        Raises `SandboxError` if it does not answer in time.
        """
        loop = asyncio.get_running_loop()
        nonce = secrets.token_bytes(16)
        self._reader = frames.FrameReader(nonce, restarts=False)
        self._attached = loop.create_future()
        self._ready = loop.create_future()
        self._read_on()
        body = json.dumps({"nonce": nonce.hex(), "seen": self._received, "packages": True}).encode()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._write(frames.HOST_MARKER + frames.encode(FrameType.HELLO, -1, body))
                state: GuestState = await self._attached
                await self._ready
        except TimeoutError:
            raise SandboxError(f"the guest did not answer within {timeout_seconds:g} s") from None
        return state

    async def rehearse(self, timeout_seconds: float = 30) -> None:
        """Have the interpreter run something of which nothing stays. Raises `SandboxError` if it does not in time."""
        self._ready = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._send(FrameType.REHEARSE, -1, b"")
                await self._ready
        except TimeoutError:
            raise SandboxError(f"the guest did not rehearse within {timeout_seconds:g} s") from None

    async def configure(self, limits: Limits) -> None:
        """Tell the guest what its user's processes may use."""
        fields = {"address_space_bytes": 4 * limits.memory_bytes, "processes": limits.processes}
        await self._send(FrameType.CONFIGURE, -1, json.dumps(fields).encode())

    async def execute(self, position: int, seq: int, code: str, *, replaying: bool, stdin: Stdin | None = None) -> None:
        """Send an instruction."""
        fields: dict[str, Any] = {"seq": seq, "replaying": replaying, "code": code}
        if stdin is not None:
            fields |= stdin.to_frame()
        body = json.dumps(fields).encode()
        if len(body) > frames.BODY_LIMIT_BYTES:
            raise SandboxError("the code is too long")
        await self._send(FrameType.EXECUTE, position, body)

    async def feed(self, position: int, seq: int, piece: CommandInput) -> None:
        """Give an instruction more to read."""
        body = json.dumps({"seq": seq, **json.loads(piece.to_text())}).encode()
        await self._send(FrameType.STDIN, position, body)

    async def reseed(self, position: int, seed: bytes) -> None:
        """Give the guest fresh randomness."""
        await self._send(FrameType.RESEED, position, seed.hex().encode())

    async def command(self, position: int, seq: int, spec: CommandSpec, output_limit_bytes: int) -> None:
        """Start a command."""
        body = json.dumps(spec.to_frame(seq, output_limit_bytes)).encode()
        if len(body) > frames.BODY_LIMIT_BYTES:
            raise SandboxError("the command is too long")
        await self._send(FrameType.COMMAND, position, body)

    async def feed_command(self, position: int, seq: int, piece: CommandInput) -> None:
        """Give a command input."""
        body = json.dumps({"seq": seq, **json.loads(piece.to_text())}).encode()
        await self._send(FrameType.COMMAND_INPUT, position, body)

    async def signal_command(self, position: int | None, seq: int, signal: CommandSignal) -> None:
        """Send a command a signal."""
        body = json.dumps(signal.to_frame(seq)).encode()
        await self._send(FrameType.COMMAND_SIGNAL, -1 if position is None else position, body)

    async def interrupt(self, seq: int, *, step: Literal["interrupt", "again", "kill"]) -> None:
        """Stop what `seq` runs, if it still runs."""
        await self._send(FrameType.INTERRUPT, seq, step.encode())

    async def kill_largest(self, reason: str) -> None:
        """Kill the user's largest process; if that is the interpreter, `reason` is why it died."""
        await self._send(FrameType.KILL_LARGEST, -1, json.dumps(reason).encode())

    async def work_on_files(self, work: FileWork) -> FileTransfer:
        """Begin some work on the user's files. Raises `FileRefused` for a guest that knows of none."""
        return await self._files.open(work)

    async def apply_change(self, position: int, transfer: FileTransfer) -> None:
        """Have a change that is prepared made true; its transfer says how that ended."""
        await self._files.apply(position, transfer.number)

    async def answer_packages(self, number: int, *, refused: str | None) -> None:
        """Answer an ask for packages."""
        fields = {"known": True} if refused is None else {"refused": refused}
        await self._send(FrameType.PACKAGES, number, json.dumps(fields).encode())

    async def complete(self, code: str, cursor: int) -> Completion:
        """What could follow at a cursor; nothing from a guest that does not know, or does not say in time."""
        nothing = Completion((), cursor, cursor)
        if self.code is None:
            return nothing
        self._ping += 1
        asked = self._ping
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._completions[asked] = future
        try:
            async with asyncio.timeout(COMPLETE_SECONDS):
                await self._send(FrameType.COMPLETE, asked, json.dumps({"code": code, "cursor": cursor}).encode())
                return _completion(await future, len(code)) or nothing
        except TimeoutError:
            return nothing
        finally:
            del self._completions[asked]

    async def hold_files(self) -> None:
        """Send nothing about files until `release_files`; when this returns the guest has read what was sent."""
        if await self._files.hold():
            await self.ping()

    def release_files(self) -> None:
        """Go on with files."""
        self._files.go_on()

    async def ping(self) -> GuestState:
        """Ask the guest for its state. Raises `SandboxError` after 5 s."""
        self._ping += 1
        ping = self._ping
        future: asyncio.Future[GuestState] = asyncio.get_running_loop().create_future()
        self._pings[ping] = future
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._send(FrameType.PING, ping, b"")
                told = self._acknowledged
                state = await future
        except TimeoutError:
            raise SandboxError(f"the guest did not answer within {PING_SECONDS:g} s") from None
        finally:
            del self._pings[ping]
        self._settled = max(self._settled, told)
        return state

    async def upgrade(self, code: GuestCode) -> str | None:
        """Have the guest's supervisor replace itself by this code; None if it did, else why it goes on as it was.

        Raises `SandboxError` if it does not answer. To be called before anything else is said after an attach.
        """
        self._upgraded = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(UPGRADE_SECONDS):
                await self._send(FrameType.UPGRADE, -1, code.load_body())
                return await self._upgraded
        except TimeoutError:
            raise SandboxError(f"the guest did not replace itself within {UPGRADE_SECONDS:g} s") from None

    async def settle(self) -> None:
        """Have the guest know what was acknowledged: an image taken after this does not say it again."""
        if self._wanted > self._settled:
            await self.ping()

    async def acknowledge(self) -> None:
        """Say that every event received so far is durable; goes with the next frame, or alone a little later."""
        if self._lost is not None:
            raise SandboxDied(self._lost.reason)
        self._wanted = self._received
        if self._unacknowledged_bytes > ACKNOWLEDGE_BYTES:
            await self._write(b"")
        elif self._timer is None and self._received > self._acknowledged:
            self._timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, self._acknowledge_alone)

    async def receive(self) -> Event:
        """The next event, in order. After `SandboxLost` it raises `SandboxDied`."""
        while not self._events:
            if self._lost is not None:
                raise SandboxDied(self._lost.reason)
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        event, serial, size = self._events.popleft()
        self._held_bytes -= size
        if not self._reading and self._lost is None and self._held_bytes < HELD_BYTES // 2:
            self._read_on()
        if serial >= 0:
            self._received = serial
            self._unacknowledged_bytes += size
        return event

    async def close(self) -> None:
        """Let go of the FIFOs."""
        self._lose("the link was closed")
        for fd in (self._stdin, self._stdout):
            if fd >= 0:
                os.close(fd)
        self._stdin = self._stdout = -1

    def lose(self, reason: str) -> None:
        """Say that the sandbox is gone, after what it has said so far."""
        self._lose(reason)

    # Writing.

    async def _send(self, kind: FrameType, number: int, body: bytes) -> None:
        await self._write(frames.encode(kind, number, body))

    async def _write(self, data: bytes) -> None:
        while self._room is not None:  # another writer waits; frames must not be mixed
            await asyncio.wait([self._room])
        if self._lost is not None:
            raise SandboxDied(self._lost.reason)
        if self._wanted > self._acknowledged:
            data = frames.encode(FrameType.ACKNOWLEDGE, self._wanted, b"") + data
            self._acknowledged = self._wanted
            self._unacknowledged_bytes = 0
        if not data:
            return
        try:
            written = os.write(self._stdin, data)
        except BlockingIOError:
            written = 0
        if written < len(data):
            await self._write_rest(memoryview(data)[written:])

    def _acknowledge_alone(self) -> None:
        self._timer = None
        if self._wanted > self._acknowledged and self._room is None and self._stdin >= 0:
            frame = frames.encode(FrameType.ACKNOWLEDGE, self._wanted, b"")
            # The frame is shorter than what a pipe takes whole or not at all; if there is no room, a later one goes.
            with contextlib.suppress(BlockingIOError):
                os.write(self._stdin, frame)
                self._acknowledged = self._wanted
                self._unacknowledged_bytes = 0

    async def _write_rest(self, data: memoryview) -> None:
        loop = asyncio.get_running_loop()
        self._room = loop.create_future()
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                while data:
                    self._writable = loop.create_future()
                    loop.add_writer(self._stdin, _settle, self._writable)
                    await self._writable
                    with contextlib.suppress(BlockingIOError):
                        data = data[os.write(self._stdin, data) :]
        except TimeoutError:
            self._lose(f"the guest read nothing for {WRITE_SECONDS:g} s")
            raise SandboxDied(f"the guest read nothing for {WRITE_SECONDS:g} s") from None
        finally:
            self._write_no_more()
            self._room.set_result(None)
            self._room = None

    def _write_no_more(self) -> None:
        if self._writable is not None and self._stdin >= 0:
            asyncio.get_running_loop().remove_writer(self._stdin)
        self._writable = None

    # Reading.

    def _read_on(self) -> None:
        if not self._reading and self._pause is None and self._lost is None:
            asyncio.get_running_loop().add_reader(self._stdout, self._readable)
            self._reading = True

    def _read_no_more(self) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._stdout)
            self._reading = False

    def _readable(self) -> None:
        try:
            data = os.read(self._stdout, READ_BYTES)
        except BlockingIOError:
            return
        self._pace.begin()
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except Exception as error:  # whatever hostile bytes can cause
            self._lose(f"the guest broke the protocol: {error}")
        if self._held_bytes > HELD_BYTES:
            self._read_no_more()
        if (seconds := self._pace.end()) and self._lost is None:
            self._read_no_more()
            self._pause = asyncio.get_running_loop().call_later(seconds, self._go_on)
        if self._events and self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _go_on(self) -> None:
        self._pause = None
        if self._held_bytes <= HELD_BYTES:
            self._read_on()

    def _take(self, frame: frames.Frame) -> None:
        kind, serial, body = frame
        if kind == FrameType.STATE:
            state, ready, fields = _state(body)
            self._files.begin(known=state.applying is not None)
            code = fields.get("code")
            self.code = None if code is None else str(code)
            if self._attached is not None and not self._attached.done():
                self._attached.set_result(state)
            if ready and self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif kind == FrameType.PONG:
            state, _, fields = _state(body)
            future = self._pings.get(int(fields["id"]))
            if future is not None and not future.done():
                future.set_result(state)
        elif kind == FrameType.COMPLETION:
            asked = self._completions.get(serial)
            if asked is not None and not asked.done():
                asked.set_result(body)
        elif kind == FrameType.READY:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif kind == FrameType.UPGRADED:
            fields = json.loads(body)
            self.code = str(fields["code"])
            if self._upgraded is not None and not self._upgraded.done():
                self._upgraded.set_result(None if fields["problem"] is None else str(fields["problem"]))
        elif FrameType.FILE_STATE <= kind <= FrameType.FILE_ENDED:
            self._files.take(kind, serial, body)
        elif kind == FrameType.PACKAGES_WANTED:
            if len(body) > frames.ASK_LIMIT_BYTES:
                raise ValueError("an ask for packages without end")
            self._events.append((_packages_wanted(serial, json.loads(body)), -1, len(body)))
            self._held_bytes += len(body)
        else:
            if serial <= self._seen:
                return
            event = _event(kind, body)
            self._seen = serial
            self._held_bytes += len(body)
            self._events.append((event, serial, len(body)))
            if isinstance(event, InterpreterDied) and self._ready is not None and not self._ready.done():
                said = b"".join(each.data for each, _, _ in self._events if isinstance(each, Output))
                self._ready.set_exception(SandboxDied(f"{event.reason}: {said[-2000:].decode('utf-8', 'replace')}"))

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._read_no_more()
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        self._lost = SandboxLost(reason)
        self._events.append((self._lost, -1, 0))
        error = SandboxDied(reason)
        waiting: list[asyncio.Future[Any]] = [*self._pings.values(), *self._completions.values()]
        for future in [self._attached, self._ready, self._upgraded, self._writable, *waiting]:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()
        self._files.lose(reason)
        self._write_no_more()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _state(body: bytes) -> tuple[GuestState, bool, dict[str, Any]]:
    fields = json.loads(body)
    running = fields["running"]
    running_seconds = float(fields.get("running_seconds", 0.0))
    if not 0.0 <= running_seconds < float("inf"):
        raise ValueError("a time that is none")
    state = GuestState(
        last_position=_whole(fields["last_position"], least=-1),
        running=None if running is None else _whole(running),
        background=bool(fields["background"]),
        running_seconds=running_seconds,
        applying=bool(fields["applying"]) if "applying" in fields else None,
        commands=_commands(fields.get("commands")),
    )
    return state, bool(fields["ready"]), fields


def _commands(said: Any) -> dict[int, float] | None:
    if said is None:
        return None
    seconds = {_whole(seq): float(each) for seq, each in said}
    if not all(0.0 <= each < float("inf") for each in seconds.values()):
        raise ValueError("a time that is none")
    return seconds


def _completion(body: bytes, characters: int) -> Completion | None:
    if not body:
        return None
    fields = json.loads(body)
    matches = tuple(str(match) for match in fields["matches"])
    start, end = int(fields["start"]), int(fields["end"])
    if not 0 <= start <= end <= characters:
        raise ValueError("a place that is none")
    return Completion(matches, start, end)


def _event(kind: int, body: bytes) -> Event:
    if kind == FrameType.OUTPUT:
        return _output(body)
    if kind == FrameType.COMMAND_OUTPUT:
        return _command_output(body)
    if kind == FrameType.COMMAND_ENDED:
        return _command_ended(json.loads(body))
    if kind == FrameType.RESULT:
        (seq,) = frames.RESULT.unpack_from(body)
        return _result(seq, json.loads(body[frames.RESULT.size :]))
    if kind == FrameType.DIED:
        fields = json.loads(body)
        seq = fields["seq"]
        return InterpreterDied(None if seq is None else _whole(seq), str(fields["reason"]))
    if kind == FrameType.NOTICE:
        fields = json.loads(body)
        if not NOTICE_CODE.fullmatch(str(fields["code"])):
            raise ValueError("a notice that is none")
        return GuestNotice(fields["code"], str(fields["message"])[:NOTICE_CHARACTERS])
    raise ValueError(f"a frame of unknown type {kind}")


def _packages_wanted(number: int, fields: dict[str, Any]) -> PackagesWanted:
    name = str(fields["name"])
    if not PACKAGES_NAME.fullmatch(name) or too_deep(fields["request"]):
        raise ValueError("an ask for packages that is none")
    return PackagesWanted(number, _whole(fields["seq"]), name, dict(fields["request"]))


def _whole(value: Any, least: int = 0) -> int:
    """A number that the ledger has room for. Raises ValueError for another."""
    number = int(value)
    if not least <= number < 1 << 62:  # two of them, too
        raise ValueError("a number that is none")
    return number


def _output(body: bytes) -> Output:
    seq, index, flags = frames.OUTPUT.unpack_from(body)
    if index >= len(frames.OUTPUT_KINDS):
        raise ValueError("output of an unknown kind")
    kind: OutputKind = frames.OUTPUT_KINDS[index]  # type: ignore[assignment]  # its three strings
    start = frames.OUTPUT.size
    offset: int | None = None
    if flags & frames.HAS_OFFSET:
        offset = _whole(frames.OFFSET.unpack_from(body, start)[0])
        start += frames.OFFSET.size
    return Output(None if seq < 0 else seq, kind, body[start:], bool(flags & frames.BACKGROUND), offset)


def _command_output(body: bytes) -> CommandOutput:
    seq, index, flags = frames.OUTPUT.unpack_from(body)
    if index >= len(frames.OUTPUT_KINDS) or not flags & frames.HAS_OFFSET:
        raise ValueError("output of a command of an unknown kind")
    kind: OutputKind = frames.OUTPUT_KINDS[index]  # type: ignore[assignment]  # its three strings
    start = frames.OUTPUT.size
    offset = _whole(frames.OFFSET.unpack_from(body, start)[0])
    start += frames.OFFSET.size
    if not flags & frames.SKIPPED:
        return CommandOutput(seq, kind, body[start:], offset)
    skipped_bytes = _whole(frames.OFFSET.unpack_from(body, start)[0])
    return CommandOutput(seq, kind, b"", offset, skipped_bytes)


def _command_ended(fields: dict[str, Any]) -> CommandEnded:
    exit_code, signal, reason = fields["exit_code"], fields["signal"], fields["reason"]
    if (exit_code is None) == (signal is None):
        raise ValueError("a command ends with an exit code or by a signal")
    return CommandEnded(
        seq=_whole(fields["seq"]),
        exit_code=None if exit_code is None else int(exit_code) & 0xFF,
        signal=None if signal is None else int(signal) & 0x7F,
        runtime_ms=_whole(max(0, int(fields["runtime_ms"]))),
        reason=None if reason is None else str(reason)[:1000],
    )


def _result(seq: int, fields: dict[str, Any]) -> Result:
    error = fields.get("error")
    value = fields.get("value")
    if error is not None:
        error = {
            "name": str(error["name"]),
            "message": str(error["message"]),
            "traceback": [str(line) for line in error["traceback"]],
        }
    return Result(
        seq=seq,
        value=None if value is None else str(value),
        data={kind: each for kind, each in dict(fields.get("data") or {}).items() if not too_deep(each)},
        error=error,
        runtime_ms=_whole(max(0, int(fields["runtime_ms"]))),
    )
