"""A sandbox that is none: runs code in this process, for tests of everything around it. Never for code of others."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import itertools
import pickle
import string
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.fake_commands import FakeCommand, FakeCommands
from torpor_worker.fake_files import FakeTransfer, Files, package_ask
from torpor_worker.files import FileRefused, FileTransfer, FileWork
from torpor_worker.sandbox import (
    Adopted,
    Completion,
    Event,
    GuestState,
    InterpreterDied,
    Limits,
    Output,
    OutputKind,
    Result,
    RuntimeUnavailable,
    Sandbox,
    SandboxDied,
    SandboxError,
    SandboxLost,
)
from torpor_worker.stdin import Stdin
from torpor_worker.survivors import ProcessFacts, Survivor

WINDOW_BYTES = 1024 * 1024


class _Takes(BaseException):
    """Raised by a scripted call in user code: the instruction goes on as `program`."""

    def __init__(self, program: dict[str, Any]) -> None:
        super().__init__()
        self.program = program


@dataclass(slots=True)
class _Image:
    """All that survives a checkpoint."""

    names: dict[str, Any] = field(default_factory=dict)
    preloaded: tuple[str, ...] = ()
    said: list[Event] = field(default_factory=list)
    """What is not acknowledged, and said again after a restore."""
    last_position: int = -1
    last_seq: int | None = None
    said_bytes: int = 0
    """Under the last seq."""
    running: int | None = None
    program: dict[str, Any] | None = None
    background: bool = False
    files: Files = field(default_factory=dict)
    commands: dict[int, FakeCommand] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    """What the instruction that runs has not read yet."""
    reads_on: bool = False
    """Whether it may be given more."""
    doom: str | None = None
    """A thread that will end the process: it does so again after every restore."""
    doom_seconds: float = 0.0


class FakeSandbox:
    """Implements `Sandbox`.

    Beside plain Python, code may call what misbehaves: `die(reason)`, `die_after()` (once it has its result),
    `die_later(seconds)`, `lose(reason)` (the whole sandbox), `hang(ignore)` (ignores so many interrupts),
    `count(n, seconds)` (prints 0 to n - 1, and can be saved in the middle of it), `flood(size)`, `use(size)` (memory),
    `background(alive)`, `content(path)` (of a file), `install(name)` (asks for a package: its archive, or the refusal),
    `say_later(text)`, `times()` (how often this host called it), `lines(n)` (waits for so many).
    """

    def __init__(
        self, host: FakeSandboxHost, name: str, image: _Image, machine: str, limits: Limits, series: str
    ) -> None:
        self._host = host
        self.series = series
        self._id = name
        self.machine, self.limits = machine, limits
        self._image = image
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._received = 0
        self._dead = False
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
        scope = names | self._host.scope(self)
        try:
            tree = ast.parse(code)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<instruction>", "exec"), scope)  # noqa: S102 — this is what it is for
            if isinstance(last, ast.Expr):
                answer = eval(compile(ast.Expression(last.value), "<instruction>", "eval"), scope)  # noqa: S307
                value = None if answer is None else repr(answer)
        except _Takes as takes:
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
        own = self._host.scope(self)
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
            self._dead = True
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
        if self._host.rehearsal_failures:
            self._host.rehearsal_failures -= 1
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
            raise SandboxDied("the sandbox is gone")


class FakeSandboxHost:
    """Implements `SandboxHost`. Its attributes say what goes wrong next, and what happened."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.frames: list[tuple[int, bool]] = []
        """Instructions sent: seq, and whether as a replay."""
        self.commands: list[int] = []
        """Commands sent, by seq."""
        self.is_old = False
        """Its guests know of no commands."""
        self.sandbox_bytes = 32 * 1024 * 1024
        self.open = asyncio.Event()
        """While it is not set, sandboxes take for ever to start."""
        self.open.set()
        self.start_failures = 0
        self.restore_failures = 0
        self.rehearsal_failures = 0
        self.checkpoint_failures = 0
        self.adopt_failures = 0
        self.checkpoint_deaths = 0
        self.checkpoints_hang = False
        self.may_checkpoint = asyncio.Event()
        """While it is not set, checkpoints that have begun do not end."""
        self.may_checkpoint.set()
        self.checkpointing = asyncio.Event()
        """Set by every checkpoint that begins."""
        self.may_answer = asyncio.Event()
        """While it is not set, pings are not answered."""
        self.may_answer.set()
        self.pinged = asyncio.Event()
        """Set by every ping."""
        self.poisoned: set[str] = set()
        """Images with a variable of such a name die as soon as they are restored."""
        self.version = "fake"
        self.series = "fake"
        """Of new sandboxes."""
        self.knows_files = True
        self.apply_deaths = 0
        """So many changes of files end their process when they are made."""
        self.apply_refusal: FileRefused | None = None
        """Why the next change of files is refused when it is made."""
        self.may_apply = asyncio.Event()
        """While it is not set, changes of files that are to be made are not."""
        self.may_apply.set()
        self.prepared = asyncio.Event()
        """Set by every change that is about to be prepared."""
        self.may_prepare = asyncio.Event()
        """While it is not set, none is."""
        self.may_prepare.set()
        self.missing: set[str] = set()
        """Runtime series that cannot be had."""
        self.started: list[str] = []
        """Machines whose sandboxes began with an empty interpreter."""
        self.restored = 0
        self.spares = 0
        self.spares_used = 0
        self.spare_size_bytes = 12 * 1024 * 1024
        self.calls = 0
        self._numbers = itertools.count()

    def scope(self, sandbox: FakeSandbox) -> dict[str, Any]:
        """What user code finds beside the builtins."""

        def takes(**program: Any) -> None:
            raise _Takes(program)

        def count(end: int, seconds: float = 0.01) -> None:
            takes(next=0, end=end, seconds=seconds, text="")

        def flood(size: int) -> None:
            takes(next=0, end=size // 65536, seconds=0, text="x" * 65535)

        def hang(ignore: int = 0, immortal: bool = False) -> None:
            takes(ignore=ignore, immortal=immortal)

        def install(wanted: str) -> None:
            takes(wants=wanted)

        def lines(count: int) -> None:
            takes(lines=count)

        def lose(reason: str = "used more than its memory") -> None:
            sandbox.end(SandboxLost(reason))

        def use(size: int) -> None:
            sandbox.used_bytes = size

        def content(path: str) -> str | None:
            found = sandbox.files.get(path)
            return None if found is None else found.decode()

        def preloaded() -> list[str]:
            return sandbox.preloaded

        def times() -> int:
            self.calls += 1
            return self.calls

        calls: list[Callable[..., Any]] = [content, count, flood, hang, install, lines, lose, preloaded, use, times]
        calls += [
            sandbox.die,
            sandbox.die_after,
            sandbox.die_later,
            sandbox.input,
            sandbox.print,
            sandbox.say_later,
            sandbox.write,
        ]
        return {call.__name__: call for call in calls} | {
            "background": sandbox.set_background,
            "__builtins__": __builtins__,
        }

    async def start(
        self, machine: str, limits: Limits, preload: Sequence[str] = (), series: str | None = None
    ) -> Sandbox:
        """See `SandboxHost`."""
        self.started.append(machine)
        await self.open.wait()
        if self.start_failures:
            self.start_failures -= 1
            raise SandboxError("runsc does not start")
        return self._add(machine, _Image(preloaded=tuple(preload)), limits, series)

    def runtime_facts(self, series: str) -> dict[str, str]:
        """See `SandboxHost`."""
        return {"series": series}

    async def have(self, series: str) -> None:
        """See `SandboxHost`."""
        if series in self.missing:
            raise RuntimeUnavailable(f"Runtime {series} is neither here nor in the store.")

    async def restore(
        self, machine: str, image: Path, limits: Limits, series: str | None = None, *, waited_for: bool = True
    ) -> tuple[Sandbox, GuestState]:
        """See `SandboxHost`."""
        if waited_for and self.spares:
            self.spares -= 1
            self.spares_used += 1
        await self.open.wait()
        if self.restore_failures:
            self.restore_failures -= 1
            raise SandboxError("runsc does not restore")
        loaded = self._read(image)
        self.restored += 1
        sandbox = self._add(machine, loaded, limits, series)
        if self.poisoned & loaded.names.keys():
            with contextlib.suppress(SandboxDied):
                sandbox.die("killed by signal 11 (SIGSEGV)")
        return sandbox, GuestState(loaded.last_position, loaded.running, loaded.background or bool(loaded.commands))

    @staticmethod
    def _read(image: Path) -> _Image:
        loaded: _Image = pickle.loads((image / "state").read_bytes())  # noqa: S301 — written by ourselves
        return loaded

    def _add(self, machine: str, image: _Image, limits: Limits, series: str | None = None) -> FakeSandbox:
        name = f"{machine}-{next(self._numbers)}"
        sandbox = self.sandboxes[name] = FakeSandbox(self, name, image, machine, limits, series or self.series)
        return sandbox

    async def preparing(self) -> None:
        """A change is about to be prepared."""
        self.prepared.set()
        await self.may_prepare.wait()

    @property
    def spare_bytes(self) -> int:
        """See `SandboxHost`."""
        return self.spares * self.spare_size_bytes

    async def add_spare(self) -> None:
        """See `SandboxHost`."""
        self.spares += 1

    async def drop_spare(self) -> bool:
        """See `SandboxHost`."""
        dropped = self.spares > 0
        self.spares -= dropped
        return dropped

    def forsake(self) -> None:
        """The worker was killed: its sandboxes are left over."""
        for name, sandbox in list(self.sandboxes.items()):
            self.sandboxes[name] = sandbox.outlive()

    async def survivors(self) -> list[Survivor]:
        """See `SandboxHost`."""
        return [Survivor(name, each.facts) for name, each in self.sandboxes.items() if each.facts is not None]

    async def adopt(self, survivor: Survivor, limits: Limits) -> Adopted:
        """See `SandboxHost`."""
        sandbox = self.sandboxes[survivor.id]
        if self.adopt_failures:
            self.adopt_failures -= 1
            await sandbox.destroy()
            raise SandboxError("the guest does not answer")
        was_frozen = sandbox.paused
        if was_frozen:
            await sandbox.resume()
        sandbox.limits = limits
        return Adopted(sandbox, await sandbox.ping(), was_frozen)

    async def dismiss(self, survivor: Survivor) -> None:
        """See `SandboxHost`."""
        await self.sandboxes[survivor.id].destroy()

    async def remove_leftovers(self, keep: Collection[str] = ()) -> int:
        """See `SandboxHost`."""
        leftovers = [sandbox for name, sandbox in self.sandboxes.items() if name not in keep]
        for sandbox in leftovers:
            await sandbox.destroy()
        return len(leftovers)

    async def close(self) -> None:
        """See `SandboxHost`."""
        for sandbox in list(self.sandboxes.values()):
            await sandbox.destroy()
