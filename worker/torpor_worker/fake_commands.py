"""Commands of a sandbox that is none: a language of a few words, for tests of everything around it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.sandbox import CommandEnded, CommandOutput, Event, OutputKind


@dataclass(slots=True)
class FakeCommand:
    """What of a command survives a checkpoint."""

    steps: list[list[str]]
    limit_bytes: int
    next: int = 0
    """The step that it is at."""
    counted: int = 0
    said_bytes: int = 0
    input: bytearray = field(default_factory=bytearray)
    closed: bool = False
    stubborn: bool = False
    """It ignores SIGTERM."""


class FakeCommands:
    """Plays commands whose text is a list of steps, each of some words, with `;` between them.

    `echo WORD...`, `err WORD...` (on standard error), `count END SECONDS` (0 to END - 1), `set NAME WORD` (a
    variable), `cat` (until its input ends), `hang`, `stubborn` (from now on SIGTERM is ignored), `exit CODE`,
    `leave WORD` (said once it has ended).
    """

    def __init__(
        self,
        commands: dict[int, FakeCommand],
        names: dict[str, Any],
        say: Callable[[Event], None],
        awake: asyncio.Event,
        spawn: Callable[[Any], asyncio.Task[None]],
    ) -> None:
        """`awake` is set while the sandbox is not frozen."""
        self._commands = commands
        self._names = names
        self._say = say
        self._awake = awake
        self._spawn = spawn
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._input = asyncio.Event()
        for seq in commands:
            self._play(seq)

    def start(self, seq: int, spec: CommandSpec, limit_bytes: int) -> None:
        """Start one."""
        text = spec.command if isinstance(spec.command, str) else " ".join(spec.command)
        steps = [step.split() for step in text.split(";") if step.strip()]
        self._commands[seq] = FakeCommand(steps, limit_bytes, input=bytearray(spec.stdin), closed=not spec.stdin_open)
        self._play(seq)

    def feed(self, seq: int, piece: CommandInput) -> None:
        """Give it input."""
        if seq in self._commands:
            self._commands[seq].input += piece.data
            self._commands[seq].closed = piece.close
            self._input.set()

    def signal(self, seq: int, sign: CommandSignal) -> None:
        """Send it a signal."""
        command = self._commands.get(seq)
        if command is None or sign.number == signal.SIGWINCH:
            return
        if not (command.stubborn and sign.number == signal.SIGTERM):
            self._tasks.pop(seq).cancel()
            self._end(seq, None, sign.number)

    def stop(self) -> None:
        """The sandbox is gone."""
        for task in self._tasks.values():
            task.cancel()

    def _play(self, seq: int) -> None:
        self._tasks[seq] = self._spawn(self._run(seq, self._commands[seq]))

    async def _run(self, seq: int, command: FakeCommand) -> None:
        await self._awake.wait()
        code = 0
        while command.next < len(command.steps):
            word, *rest = command.steps[command.next]
            match word:
                case "echo" | "err":
                    self._write(seq, command, "stdout" if word == "echo" else "stderr", " ".join(rest))
                case "count":
                    while command.counted < int(rest[0]):
                        await asyncio.sleep(float(rest[1]))
                        await self._awake.wait()
                        self._write(seq, command, "stdout", str(command.counted))
                        command.counted += 1
                case "set":
                    self._names[rest[0]] = rest[1]
                case "cat":
                    await self._cat(seq, command)
                case "hang":
                    await asyncio.Event().wait()
                case "stubborn":
                    command.stubborn = True
                case "pip":
                    code = self._install(seq, command, rest[rest.index("--") + 1 :])
                case "exit":
                    code = int(rest[0])
                    break
            command.next += 1
        self._end(seq, code, None)

    def _install(self, seq: int, command: FakeCommand, names: list[str]) -> int:
        if "refused" in names:
            self._write(seq, command, "stderr", "ERROR: The server does not allow the package refused.")
            return 1
        self._write(seq, command, "stdout", "Successfully installed " + " ".join(f"{name}-1.0" for name in names))
        return 0

    async def _cat(self, seq: int, command: FakeCommand) -> None:
        while True:
            if command.input:
                data = bytes(command.input)
                command.input.clear()
                self._put(seq, command, "stdout", data)
            if command.closed:
                return
            self._input.clear()
            await self._input.wait()
            await self._awake.wait()

    def _write(self, seq: int, command: FakeCommand, kind: OutputKind, text: str) -> None:
        self._put(seq, command, kind, f"{text}\n".encode())

    def _put(self, seq: int, command: FakeCommand, kind: OutputKind, data: bytes) -> None:
        room = max(0, command.limit_bytes - command.said_bytes)
        for piece, skipped in ((data[:room], 0), (b"", len(data[room:]))):
            if piece or skipped:
                self._say(CommandOutput(seq, kind, piece, command.said_bytes, skipped))
                command.said_bytes += len(piece) + skipped

    def _end(self, seq: int, code: int | None, number: int | None) -> None:
        command = self._commands.pop(seq)
        self._tasks.pop(seq, None)
        self._say(CommandEnded(seq, code, number, 1))
        for word, *rest in command.steps[: command.next + 1]:
            if word == "leave":
                self._write(seq, command, "stdout", " ".join(rest))
