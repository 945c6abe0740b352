"""A sandbox that is none: runs code in this process, for tests of everything around it. Never for code of others."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import pickle
import string
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.fake_calls import Takes, calls_of
from torpor_worker.fake_commands import FakeCommands
from torpor_worker.fake_files import FakeTransfer, Files, package_ask
from torpor_worker.fake_image import FakeImage
from torpor_worker.files import FileRefused, FileTransfer, FileWork
from torpor_worker.sandbox import (
    Completion,
    Event,
    GuestState,
    InterpreterDied,
    Limits,
    Output,
    OutputKind,
    Result,
    SandboxDied,
    SandboxError,
    SandboxLost,
)
from torpor_worker.stdin import Stdin
from torpor_worker.survivors import ProcessFacts

if TYPE_CHECKING:
    from torpor_worker.fake_host import FakeSandboxHost

WINDOW_BYTES = 1024 * 1024


class FakeSandbox:
    """Implements `Sandbox`.

    Beside plain Python, code may call what misbehaves: `die(reason)`, `die_after()` (once it has its result),
    `die_later(seconds)`, `lose(reason)` (the whole sandbox), `hang(ignore)` (ignores so many interrupts),
    `count(n, seconds)` (prints 0 to n - 1, and can be saved in the middle of it), `flood(size)`, `use(size)` (memory),
    `background(alive)`, `content(path)` (of a file), `install(name)` (asks for a package: its archive, or the refusal),
    `say_later(text)`, `times()` (how often this host called it), `lines(n)` (waits for so many).
    """

    def __init__(
        self, host: FakeSandboxHost, name: str, image: FakeImage, machine: str, limits: Limits, series: str
    ) -> None:
        self._host = host
        self.series = series
        self._id = name
        self.machine, self.limits = machine, limits
        self._image = image
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._received = 0
        self._dead = False
        self._reason = "the sandbox is gone"
        self._ended = False
        self._awake = asyncio.Event()
        self._awake.set()
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: list[str] = []
        self.facts: ProcessFacts | None = None
        self._dies_after = False
        self._transfers: list[FakeTransfer] = []
        self.paused = False
        self.has_rehearsed = False
        self.used_bytes = host.sandbox_bytes
        self._refused: str | None = None
        """Why the host hands in no packages."""
        for event in image.said:
            self._events.put_nowait(event)
        self._commands = FakeCommands(image.commands, image.names, self._say, self._awake, self._spawn)
        self._player = None if image.program is None else self._spawn(self._play())
        if image.doom is not None:
            self._spawn(self._die_later())

    @property
    def id(self) -> str:
        """See `Sandbox`."""
        return self._id

    async def assign(self, machine: str, limits: Limits) -> None:
        """See `Sandbox`."""
        self._alive()
        self.machine, self.limits = machine, limits

    async def limit(self, limits: Limits) -> None:
        """See `Sandbox`."""
        self._alive()
        self.limits = limits

    async def execute(self, position: int, seq: int, code: str, *, replaying: bool, stdin: Stdin | None = None) -> None:
        """See `Sandbox`."""
        self._alive()
        if position <= self._image.last_position:
            return
        self._host.frames.append((seq, replaying))
        self._image.last_position = position
        self._image.last_seq = self._image.running = seq
        self._image.said_bytes = 0
        self._image.lines = [] if stdin is None else stdin.text.splitlines()
        self._image.reads_on = stdin is not None and stdin.open
        self._run(seq, code)
        self._read_lines()

    async def feed(self, position: int, seq: int, piece: CommandInput) -> None:
        """See `Sandbox`; it takes whole lines only."""
        self._alive()
        if self._moves_to(position) and seq == self._image.running and self._image.reads_on:
            self._image.lines += piece.data.decode().splitlines()
            self._image.reads_on = not piece.close
            self._read_lines()

    def _read_lines(self) -> None:
        program, lines = self._image.program or {}, self._image.lines
        if "lines" in program and (len(lines) >= program["lines"] or not self._image.reads_on):
            self._end(repr(lines[: program["lines"]]), None)

    def input(self, prompt: str = "") -> str:
        """What user code calls as `input`; it never waits."""
        self.print(prompt)
        if not self._image.lines:
            raise EOFError("nothing to read")
        return self._image.lines.pop(0)

    def _run(self, seq: int, code: str) -> None:
        value: str | None = None
        error: dict[str, Any] | None = None
        names = self._image.names
        scope = names | calls_of(self, self._host)
        try:
            tree = ast.parse(code)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<instruction>", "exec"), scope)  # noqa: S102 — this is what it is for
            if isinstance(last, ast.Expr):
                answer = eval(compile(ast.Expression(last.value), "<instruction>", "eval"), scope)  # noqa: S307
                value = None if answer is None else repr(answer)
        except Takes as takes:
            self._keep(scope)
            self._image.program = takes.program
            self._player = self._spawn(self._play())
            return
        except SandboxDied:
            return
        except (Exception, SystemExit) as raised:
            lines = traceback.format_exception(raised)
            error = {"name": type(raised).__name__, "message": str(raised), "traceback": lines}
        self._keep(scope)
        self._end(value, error)

    def _keep(self, scope: dict[str, Any]) -> None:
        own = calls_of(self, self._host)
        kept = {name: value for name, value in scope.items() if name not in own}
        self._image.names.clear()  # commands have it too
        self._image.names.update(kept)

    def _end(self, value: str | None, error: dict[str, Any] | None) -> None:
        seq, self._image.running, self._image.program = self._image.running, None, None
        if seq is not None:
            self._say(Result(seq, value=value, error=error, runtime_ms=1))
        while self._later:
            self.print(self._later.pop(0))
        if self._dies_after:
            with contextlib.suppress(SandboxDied):
                self.die("exit status 1")

    def _say(self, event: Event) -> None:
        if not self._dead:
            self._image.said.append(event)
            self._events.put_nowait(event)

    def print(self, *words: object, kind: Literal["stdout", "stderr"] = "stdout", flush: bool = True) -> None:
        """What user code calls as `print`."""
        self.write(kind, (" ".join(map(str, words)) + "\n").encode())

    def write(self, kind: OutputKind, data: bytes) -> None:
        """What user code calls as `write`: raw output, of a display too."""
        background = self._image.running is None
        self._say(Output(self._image.last_seq, kind, data, background, self._image.said_bytes))
        self._image.said_bytes += len(data)

    def die(self, reason: str = "exit status 1") -> None:
        """End the interpreter."""
        self.end(InterpreterDied(self._image.running, reason))

    def end(self, event: InterpreterDied | SandboxLost) -> None:
        """End the process with this as the last event."""
        if not self._dead:
            self._events.put_nowait(event)
            self._dead, self._reason = True, event.reason
            for transfer in self._transfers:
                transfer.die(event.reason)
            for task in self._tasks:
                task.cancel()
        raise SandboxDied(event.reason)

    async def crash(self) -> None:
        """See `Sandbox`."""
        with contextlib.suppress(SandboxDied):
            self.end(SandboxLost("its process ended"))

    def die_later(self, seconds: float) -> None:
        """A thread that ends the process."""
        self._image.doom, self._image.doom_seconds = "killed by a thread", seconds
        self._image.background = True
        self._spawn(self._die_later())

    def die_after(self) -> None:
        """End the interpreter as soon as this instruction has its result."""
        self._dies_after = True

    @property
    def files(self) -> Files:
        """Content by absolute path."""
        return self._image.files

    @property
    def preloaded(self) -> list[str]:
        """Modules that were imported before anything ran."""
        return list(self._image.preloaded)

    def set_background(self, alive: bool = True) -> None:
        """Whether threads of the user's live on."""
        self._image.background = alive

    def say_later(self, text: str) -> None:
        """Background output, once the instruction has ended."""
        self._later.append(text)

    async def _die_later(self) -> None:
        await asyncio.sleep(self._image.doom_seconds)
        await self._awake.wait()
        with contextlib.suppress(SandboxDied):
            self.die(self._image.doom or "")

    async def _play(self) -> None:
        """Go on with a long instruction, from where its state is."""
        program = self._image.program
        if program is not None and "wants" in program:
            await self._install(program["wants"])
            return
        while program is not None and program.get("next", 0) < program.get("end", 0):
            await asyncio.sleep(program["seconds"])
            await self._awake.wait()
            while sum(len(event.data) for event in self._image.said if isinstance(event, Output)) > WINDOW_BYTES:
                self._room.clear()
                await self._room.wait()
            self.print(program["text"] or program["next"])
            program["next"] += 1
        if program is not None and "end" in program:
            self._end(repr(program["next"]), None)

    async def _install(self, wanted: str) -> None:
        ask, path = package_ask(-1 if self._image.running is None else self._image.running, wanted)
        self._events.put_nowait(ask)
        while path not in self.files and self._refused is None:  # noqa: ASYNC110 (as the guest's `pip` looks)
            await asyncio.sleep(0.001)
        await self._awake.wait()
        installed = self.files.pop(path, None)
        self._end(repr(self._refused if installed is None else installed.decode()), None)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def reseed(self, position: int, seed: bytes) -> None:
        """See `Sandbox`."""
        self._alive()
        if position > self._image.last_position:
            self._image.last_position = position
            self._image.names["seed"] = seed

    async def command(self, position: int, seq: int, spec: CommandSpec, output_limit_bytes: int) -> None:
        """See `Sandbox`."""
        self._alive()
        if self._moves_to(position):
            self._host.commands.append(seq)
            self._commands.start(seq, spec, output_limit_bytes)

    async def feed_command(self, position: int, seq: int, piece: CommandInput) -> None:
        """See `Sandbox`."""
        self._alive()
        if self._moves_to(position):
            self._commands.feed(seq, piece)

    async def signal_command(self, position: int | None, seq: int, signal: CommandSignal) -> None:
        """See `Sandbox`."""
        self._alive()
        if position is None or self._moves_to(position):
            self._commands.signal(seq, signal)

    def _moves_to(self, position: int) -> bool:
        is_new = position > self._image.last_position
        self._image.last_position = max(self._image.last_position, position)
        return is_new

    async def interrupt(self, seq: int, *, step: Literal["interrupt", "again", "kill"]) -> None:
        """See `Sandbox`."""
        self._alive()
        if self._image.running != seq:
            return
        program = self._image.program or {}
        if step == "kill" and program.get("immortal"):
            return
        if step == "kill":
            with contextlib.suppress(SandboxDied):
                self.die("killed by signal 9 (SIGKILL)")
        elif program.get("ignore", 0) > 0:
            program["ignore"] -= 1
        else:
            if self._player is not None:
                self._player.cancel()
            self._end(None, {"name": "KeyboardInterrupt", "message": "", "traceback": ["KeyboardInterrupt\n"]})

    async def work_on_files(self, work: FileWork) -> FileTransfer:
        """See `Sandbox`."""
        self._alive()
        if not self._host.knows_files:
            raise FileRefused("files_unsupported", "The machine's guest is older than files.")
        transfer = FakeTransfer(len(self._transfers), work, self._image.files, self._alive, self._host.preparing)
        self._transfers.append(transfer)
        return transfer

    async def apply_change(self, position: int, transfer: FileTransfer) -> None:
        """See `Sandbox`."""
        self._alive()
        if position <= self._image.last_position:
            return
        if self._host.apply_deaths:
            self._host.apply_deaths -= 1
            self.die("killed while files were changed")
        self._image.last_position = position
        change = self._transfers[transfer.number]
        if change.is_over:
            return
        change.refuses, self._host.apply_refusal = self._host.apply_refusal, None
        change.is_applied = True
        await self._host.may_apply.wait()
        self._alive()
        change.apply()

    async def answer_packages(self, number: int, *, refused: str | None) -> None:
        """See `Sandbox`."""
        self._alive()
        self._refused = refused

    async def rehearse(self) -> None:
        """See `Sandbox`; none of its pages has to be touched."""
        self._alive()
        self._host.rehearsals += 1
        if self._host.rehearsals == self._host.failing_rehearsal:
            raise SandboxError("it does not rehearse")
        self.has_rehearsed = True

    async def complete(self, code: str, cursor: int) -> Completion:
        """See `Sandbox`; it knows the names of variables only."""
        self._alive()
        before = code[:cursor]
        stem = before[len(before.rstrip(string.ascii_letters + string.digits + "_")) :]
        if self._image.running is not None or not stem:
            return Completion((), cursor, cursor)
        matches = tuple(sorted(name for name in self._image.names if name.startswith(stem)))
        return Completion(matches, cursor - len(stem), cursor)

    async def ping(self) -> GuestState:
        """See `Sandbox`."""
        self._alive()
        self._host.pinged.set()
        await self._host.may_answer.wait()
        self._alive()
        image = self._image
        applying = False if self._host.knows_files else None
        commands = None if self._host.is_old else dict.fromkeys(image.commands, 0.0)
        background = image.background or bool(image.commands)
        return GuestState(image.last_position, image.running, background, applying=applying, commands=commands)

    async def receive(self) -> Event:
        """See `Sandbox`."""
        if self._ended:
            raise SandboxDied("nothing more will come")
        event = await self._events.get()
        self._received += 1
        self._ended = isinstance(event, InterpreterDied | SandboxLost)
        return event

    async def acknowledge(self) -> None:
        """See `Sandbox`."""
        self._alive()
        del self._image.said[: self._received]
        self._received = 0
        self._room.set()

    async def pause(self) -> None:
        """See `Sandbox`."""
        self._alive()
        self.paused = True
        self._awake.clear()

    async def resume(self) -> None:
        """See `Sandbox`."""
        self._alive()
        self.paused = False
        self._awake.set()

    async def checkpoint(self, image: Path) -> None:
        """See `Sandbox`."""
        self._alive()
        if self._host.checkpoints_hang:
            await asyncio.Event().wait()
        self._host.checkpointing.set()
        await self._host.may_checkpoint.wait()
        if self._host.checkpoint_deaths:
            self._host.checkpoint_deaths -= 1
            self.die("killed in a checkpoint")
        if self._host.checkpoint_failures:
            self._host.checkpoint_failures -= 1
            raise SandboxError("no space left on device")
        body = pickle.dumps(self._image)
        await asyncio.sleep(0)
        self._write(image, body)

    @staticmethod
    def _write(image: Path, body: bytes) -> None:
        image.mkdir()
        (image / "state").write_bytes(body)

    async def remember(self, facts: ProcessFacts) -> None:
        """See `Sandbox`."""
        self.facts = facts

    def memory_bytes(self) -> int:
        """See `Sandbox`."""
        return 0 if self._dead else self.used_bytes

    async def destroy(self) -> None:
        """See `Sandbox`."""
        self._dead = True
        for transfer in self._transfers:
            transfer.die("it was removed")
        if self._host.sandboxes.get(self._id) is self:
            del self._host.sandboxes[self._id]
        for task in self._tasks:
            task.cancel()

    def outlive(self) -> FakeSandbox:
        """The same processes, as they are found when their worker was killed; what that still does changes nothing."""
        self._dead = True
        for task in self._tasks:
            task.cancel()
        found = FakeSandbox(self._host, self._id, self._image, self.machine, self.limits, self.series)
        found.facts = self.facts
        if self.paused:
            found.paused = True
            found._awake.clear()
        return found

    def _alive(self) -> None:
        if self._dead:
            raise SandboxDied(self._reason)
