"""The asynchronous twin of `_machine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

from . import _calls, _http
from ._answers import Answers
from ._async_connection import AsyncConnection
from ._async_execution import AsyncExecution
from ._async_machine_commands import AsyncCommands
from ._async_machine_files import AsyncFiles
from ._async_machine_packages import AsyncPackages
from ._async_run_stream import AsyncRunStream
from ._calls import UNSET, Unset
from ._events import Display, InputRequest, Stderr, Stdout
from ._forked import Forked
from ._models import (
    Completion,
    Crashed,
    Forks,
    History,
    Instruction,
    Interrupted,
    MachineInfo,
    Recovered,
    Rollback,
    RunAnswer,
    Snapshot,
    SnapshotList,
    Started,
)
from ._result import Result, result_of_answer
from ._stream import StreamState

if TYPE_CHECKING:
    from .tools._callable import AsyncPythonFunction

__all__ = ["AsyncMachine", "AsyncRunStream"]


class AsyncMachine:
    """A Python machine that is always there: variables, files, threads and open connections inside it stay.

    It has no states to care for. Nobody starts it; idle, it falls asleep, and the next call wakes it.

    >>> machine = client.machine("analysis")
    >>> (await machine.run("a = 3")).ok
    True
    >>> (await machine.run("a + 5")).value  # an hour, a restart of the server, or two years later
    '8'
    """

    def __init__(self, connection: AsyncConnection, name: str, info: MachineInfo | None = None) -> None:
        self._connection = connection
        self.name = name
        self.info = info
        """What a list said of it; None if it came from elsewhere. `detail` asks anew."""

    @property
    def files(self) -> AsyncFiles:
        """Its files: read, write, list and remove them, and copy files and folders both ways.

        >>> await machine.files.write("hello.txt", "hello")
        """
        return AsyncFiles(self._connection, self.name)

    @property
    def commands(self) -> AsyncCommands:
        r"""Shell commands, beside whatever else runs on it.

        >>> (await machine.commands.run("ls /nowhere")).exit_code
        2
        """
        return AsyncCommands(self._connection, self.name)

    @property
    def packages(self) -> AsyncPackages:
        """Its packages: what `pip` installs on it.

        >>> (await machine.packages.install("tidy")).installed
        (Package(name='tidy', version='1.2'),)
        """
        return AsyncPackages(self._connection, self.name)

    async def run(
        self,
        code: str,
        *,
        timeout_seconds: float | None = None,
        queue: bool = False,
        interrupt: bool = False,
        timings: bool = False,
        idempotency_key: str | None = None,
        on_output: Callable[[Stdout | Stderr | Display], Awaitable[None] | None] | None = None,
        stdin: str | None = None,
        on_input: Callable[[InputRequest], Awaitable[str | None] | str | None] | None = None,
        notices: bool = True,
    ) -> Result:
        r"""Run code and wait for what comes of it. An error of the code is in the result, and is not raised.

        Args:
            code: Python, as in a notebook's cell: the last expression is the value, and top-level `await` works.
            timeout_seconds: After so much running time it is ended; the server's default is 15, and `math.inf` is
                the longest that it allows.
            queue: If the machine runs something else, wait for that to end. Else `MachineBusy` is raised.
            interrupt: If the machine runs something else, end that.
            timings: Let `timings` of the result have, as `wake`, the phases of the wake if the machine was asleep.
            idempotency_key: A word of your own for this call: asked again with the same word within a day, also by
                another process, it is not run again, and its first result is returned.
            on_output: Called with each piece of output at the moment when it appears.
            stdin: What the code reads: `input()` gets its lines in order, and then meets the end.
            on_input: Called when the code waits for a line that is not there; what it returns is the line, and None the
                end. The time that this takes counts as running time.
            notices: Whether its result may carry what the machine's users were not told yet; False leaves that for a
                later one, for what a program runs for itself.

        >>> (await machine.run("import math; math.factorial(20)")).value
        '2432902008176640000'
        >>> (await machine.run("int(input()) + int(input())", stdin="3\n5\n")).value
        '8'
        >>> (await machine.run("input('Name? ')", on_input=lambda question: "Ada")).value
        "'Ada'"
        """
        if on_output is not None or on_input is not None:
            stream = self.stream(
                code,
                timeout_seconds=timeout_seconds,
                queue=queue,
                interrupt=interrupt,
                timings=timings,
                idempotency_key=idempotency_key,
                stdin=stdin,
                stdin_open=on_input is not None,
                notices=notices,
            )
            return await self._run_showing(stream, on_output, on_input, Answers(stdin))
        call = _calls.run(
            self.name,
            code,
            timeout_seconds=timeout_seconds,
            queue=queue,
            interrupt=interrupt,
            timings=timings,
            idempotency_key=idempotency_key,
            stdin=stdin,
            notices=notices,
        )
        return result_of_answer(_http.parsed(await self._connection.send(call), RunAnswer), self.name)

    def stream(
        self,
        code: str,
        *,
        timeout_seconds: float | None = None,
        queue: bool = False,
        interrupt: bool = False,
        timings: bool = False,
        idempotency_key: str | None = None,
        stdin: str | None = None,
        stdin_open: bool = False,
        notices: bool = True,
    ) -> AsyncRunStream:
        """Run code and follow what it says. Arguments as for `run`. It is sent when the first event is asked for.

        With `stdin_open` more may be sent for it to read, each time that an `InputRequest` is among the events.

        >>> stream = machine.stream("for i in range(3): print(i)")
        >>> async for event in stream:
        ...     if isinstance(event, torpor.Stdout):
        ...         print(event.text, end="")
        0
        1
        2
        >>> (await stream.result()).ok
        True
        """
        call = _calls.run(
            self.name,
            code,
            timeout_seconds=timeout_seconds,
            queue=queue,
            interrupt=interrupt,
            timings=timings,
            streamed=True,
            idempotency_key=idempotency_key,
            stdin=stdin,
            stdin_open=stdin_open,
            notices=notices,
        )
        return AsyncRunStream(self._connection, StreamState(self.name, call=call, notices=notices))

    async def start(
        self,
        code: str,
        *,
        timeout_seconds: float | None = None,
        queue: bool = False,
        interrupt: bool = False,
        idempotency_key: str | None = None,
        stdin: str | None = None,
        stdin_open: bool = False,
    ) -> AsyncExecution:
        """Let code run in the background: a handle, to wait for it here or, by its number, in any other process.

        Arguments as for `run`. It is accepted when this returns, and runs whatever becomes of this program. With
        `stdin_open` more may be sent for it to read.

        >>> training = await machine.start("import time; time.sleep(2); 'trained'", timeout_seconds=120)
        >>> await training.done()
        False
        >>> (await training.wait()).value
        "'trained'"
        """
        call = _calls.start(
            self.name,
            code,
            timeout_seconds=timeout_seconds,
            queue=queue,
            interrupt=interrupt,
            idempotency_key=idempotency_key,
            stdin=stdin,
            stdin_open=stdin_open,
        )
        answer = _http.parsed(await self._connection.send(call), Started)
        machine = AsyncMachine(self._connection.making(None), answer.machine or self.name)
        return AsyncExecution(machine._connection, machine, answer.accepted_seq)

    def execution(self, seq: int) -> AsyncExecution:
        """The handle on an instruction that was started elsewhere, by its number. Nothing is asked yet.

        >>> started = await machine.start("3 + 5")
        >>> (await machine.execution(started.seq).wait()).value
        '8'
        """
        return AsyncExecution(self._connection, self, seq)

    def attach(self, seq: int) -> AsyncRunStream:
        """Follow an instruction that was started elsewhere, or read again one that is finished, from its beginning.

        Output from the background that came after its result follows behind that.

        >>> seq = (await machine.run("3 + 5")).seq
        >>> (await machine.attach(seq).result()).value
        '8'
        """
        return AsyncRunStream(self._connection, StreamState(self.name, seq=seq), to_the_end=True)

    async def complete(self, code: str, cursor: int | None = None) -> Completion:
        """What could follow at a cursor, in characters from the beginning of the code; by default at its end.

        It finds nothing while the machine runs something.

        >>> (await machine.run("number = 3")).ok
        True
        >>> (await machine.complete("num")).matches
        ('number',)
        """
        return _http.parsed(await self._connection.send(_calls.complete(self.name, code, cursor)), Completion)

    async def interrupt(self, seq: int | None = None) -> bool:
        r"""Raise KeyboardInterrupt in what runs, or only in this instruction, as soon as it begins if it still waits.

        Whether there is anything to interrupt.

        >>> endless = machine.stream("a = 3; print('begun', flush=True)\nwhile True: pass")
        >>> (await anext(aiter(endless))).type
        'stdout'
        >>> await machine.interrupt()
        True
        >>> (await machine.run("a + 5", queue=True)).value
        '8'
        """
        return _http.parsed(await self._connection.send(_calls.interrupt(self.name, seq)), Interrupted).interrupted

    async def history(self, *, limit: int | None = None) -> AsyncIterator[Instruction]:
        """What was run on it, newest first, at most `limit`; fetched page by page.

        >>> (await machine.run("a = 3")).value, (await machine.run("a + 5")).value
        (None, '8')
        >>> [instruction.code async for instruction in machine.history(limit=2)]
        ['a + 5', 'a = 3']
        """
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            call = _calls.history(self.name, left, cursor)
            page = _http.parsed(await self._connection.send(call), History)
            for instruction in page.instructions:
                yield instruction
            cursor = page.cursor
            left = None if left is None else left - len(page.instructions)
            if cursor is None:
                return

    async def instruction(self, seq: int) -> Instruction:
        """One instruction of its history, with its output. Raises `InstructionNotFound`.

        >>> seq = (await machine.run("a = 3")).seq
        >>> (await machine.instruction(seq)).code
        'a = 3'
        """
        return _http.parsed(await self._connection.send(_calls.instruction(self.name, seq)), Instruction)

    async def detail(self) -> MachineInfo:
        """All that the server tells of it: state, settings, sizes, notices. Does not wake it.

        >>> (await machine.detail()).memory_mb
        1024
        """
        return _http.parsed(await self._connection.send(_calls.detail(self.name)), MachineInfo)

    async def update(
        self,
        *,
        tags: Mapping[str, str | None] | None = None,
        memory_mb: int | None = None,
        idle_seconds: float | Unset | None = UNSET,
        durability: str | None = None,
        recovery: str | None = None,
        replay_seconds: float | None = None,
        alias: str | Unset | None = UNSET,
    ) -> MachineInfo:
        """Change settings and tags, at once; what is not named stays. All that there is of it then.

        Args:
            tags: Tags to set; None takes one away, and others stay.
            memory_mb: The memory it may use; `InvalidRequest` if that is less than it uses.
            idle_seconds: After so long without work it falls asleep; None: it stays awake.
            durability: `interval` or `instruction`, as for `new_machine`; so are the others.
            recovery: `replay` or `rollback`.
            replay_seconds: How much running time a recovery may execute again.
            alias: What it is called from now on; None: only by its own name. Raises `AliasTaken`.

        >>> (await machine.update(tags={"user": "42"}, durability="instruction")).durability
        'instruction'
        """
        settings = {"durability": durability, "recovery": recovery, "replay_seconds": replay_seconds}
        call = _calls.update(self.name, tags, memory_mb, idle_seconds, settings, alias)
        return _http.parsed(await self._connection.send(call), MachineInfo)

    async def sleep(self) -> None:
        """Put it to sleep now. Never needed: idle, it falls asleep. Raises `MachineNotIdle` while something runs.

        >>> (await machine.run("a = 3")).ok
        True
        >>> await machine.sleep()
        >>> (await machine.detail()).state
        'asleep'
        >>> (await machine.run("a + 5")).value
        '8'
        """
        await self._connection.send(_calls.transition(self.name, "sleep"))

    async def wake(self) -> None:
        """Wake it now. Never needed: the next call wakes it.

        >>> await machine.wake()
        >>> (await machine.run("3 + 5")).value
        '8'
        """
        await self._connection.send(_calls.transition(self.name, "wake"))

    async def sync(self) -> None:
        """Make all of its state durable now, like `fsync`; it stays awake.

        >>> (await machine.run("a = 3")).ok
        True
        >>> await machine.sync()
        >>> (await machine.snapshots())[0].seq
        0
        """
        await self._connection.send(_calls.transition(self.name, "sync"))

    async def snapshots(self) -> list[Snapshot]:
        """Its saved states that are kept, newest first.

        >>> for code in ("a = 3", "a += 5"):
        ...     result = await machine.run(code)
        ...     await machine.sync()
        >>> [snapshot.seq for snapshot in await machine.snapshots()]
        [1, 0]
        """
        return list(_http.parsed(await self._connection.send(_calls.snapshots(self.name)), SnapshotList).snapshots)

    async def pin(self, generation: int) -> Snapshot:
        """Keep a snapshot until it is unpinned. Raises `SnapshotNotFound`.

        >>> (await machine.run("a = 3")).ok
        True
        >>> await machine.sync()
        >>> newest = (await machine.snapshots())[0]
        >>> (await machine.pin(newest.generation)).pinned
        True
        """
        return _http.parsed(await self._connection.send(_calls.pin(self.name, generation, pinned=True)), Snapshot)

    async def unpin(self, generation: int) -> Snapshot:
        """Keep a snapshot only as long as any other. Raises `SnapshotNotFound`.

        >>> (await machine.run("a = 3")).ok
        True
        >>> await machine.sync()
        >>> newest = (await machine.snapshots())[0]
        >>> (await machine.pin(newest.generation)).pinned
        True
        >>> (await machine.unpin(newest.generation)).pinned
        False
        """
        return _http.parsed(await self._connection.send(_calls.pin(self.name, generation, pinned=False)), Snapshot)

    async def rollback(
        self, *, generation: int | None = None, seq: int | None = None, interrupt: bool = False
    ) -> Rollback:
        """Let it go on from an earlier point; what it did since stays in its history. It is saved first.

        Args:
            generation: The snapshot to go back to.
            seq: Or go back to when this instruction had just finished.
            interrupt: If it runs something, end that. Else `MachineBusy` is raised.

        >>> for code in ("a = 3", "a = None"):
        ...     result = await machine.run(code)
        >>> done = await machine.rollback(seq=0)
        >>> (await machine.run("a")).value
        '3'
        >>> back = await machine.rollback(generation=done.undo.generation)  # take it back
        >>> (await machine.run("a is None")).value
        'True'

        Raises `SnapshotNotFound`, `InstructionNotFound`, `PointUnreachable` (its hint names the nearest points).
        """
        call = _calls.rollback(self.name, generation, seq, interrupt=interrupt)
        return _http.parsed(await self._connection.send(call), Rollback)

    async def fork(
        self,
        *,
        generation: int | None = None,
        seq: int | None = None,
        count: int = 1,
        tags: Mapping[str, str] | None = None,
    ) -> Forked[AsyncMachine]:
        """New machines that go on from a state of this one, each its own way; without a point from the state of now.

        Args:
            generation: The snapshot to begin with.
            seq: Or begin as it was when this instruction had just finished.
            count: How many, up to 100. It costs no copy of what is stored.
            tags: Those of the new machines; by default they have this one's.

        >>> left, right = await machine.fork(count=2)

        If it runs something and no point is named, they begin with its newest snapshot in which nothing ran; `lacks` of
        what is returned names the instructions that are not in it. Raises `MachineBusy` if there is no such snapshot,
        and what `rollback` raises.
        """
        call = _calls.fork(self.name, generation, seq, count, tags)
        forks = _http.parsed(await self._connection.send(call), Forks)
        machines = [AsyncMachine(self._connection.making(None), name) for name in forks.machines]
        return Forked(machines, generation=forks.generation, lacks=forks.lacks)

    async def recover(self, how: str, *, seq: int | None = None, generation: int | None = None) -> Recovered:
        """Bring it back after recovery gave it up (`state` is `parked`), and wait until it is awake.

        Args:
            how: `retry`: once more, from its newest snapshot. `skip`: without the instruction that ends its process
                each time. `rollback`: from a snapshot, without what it did since.
            seq: The instruction to skip; by default the one that recovery blames.
            generation: The snapshot to go back to; by default the newest that recovery did not set aside.

        Whatever is tried, every snapshot of it can still be reached. Raises `MachineParked` if it did not work,
        `MachineNotParked`, and what `rollback` raises.

        >>> await machine.recover("retry")
        Traceback (most recent call last):
        torpor.MachineNotParked: The machine is not parked: it recovers by itself.
        """
        call = _calls.recover(self.name, how, seq, generation)
        return _http.parsed(await self._connection.send(call), Recovered)

    async def export(self, file: BinaryIO) -> int:
        """Write all that can be had of a parked machine to a file, as a tar archive; how many bytes that are.

        In it are `machine.json`, `log.jsonl` and, if any of its snapshots starts, `state.tar` with its files and those
        of its variables that pickle. That was written by code of the machine's: unpack and unpickle it with care.
        Raises `MachineNotParked`.

        >>> with open("machine.tar", "wb") as file:
        ...     await machine.export(file)
        Traceback (most recent call last):
        torpor.MachineNotParked: The machine is not parked: it recovers by itself.
        """
        return await self._connection.download(_calls.export(self.name), file)

    async def crash(self) -> bool:
        """Kill its process, to see it recovered; False if it has none because it is asleep.

        What runs at that moment, or begins in it, ends in an error, as it does when a process dies by accident.

        >>> (await machine.run("a = 3")).ok
        True
        >>> await machine.crash()
        True
        """
        return _http.parsed(await self._connection.send(_calls.crash(self.name)), Crashed).crashed

    async def delete(self) -> None:
        """Delete it and all that is stored of it, for good.

        >>> await machine.delete()
        >>> await machine.detail()
        Traceback (most recent call last):
        torpor.MachineNotFound: No machine of this name belongs to the account.
        """
        await self._connection.send(_calls.delete(self.name))

    def tool(self) -> AsyncPythonFunction:
        """A plain function `python(code, timeout_seconds=None)`, for whatever makes tools of functions or of schemas.

        It has a docstring for a model, `parameters`, the JSON schema of its arguments, and returns what a model should
        read. `torpor.tools` has more: images, call ids, a machine for each conversation.

        >>> python = machine.tool()
        >>> python.__name__, list(python.parameters["properties"])
        ('python', ['code', 'timeout_seconds'])
        >>> await python(**{"code": "3 + 5", "timeout_seconds": None})  # arguments as a model gives them
        '8'
        """
        from .tools._callable import async_callable_of  # noqa: PLC0415 - the tools are made of machines

        return async_callable_of(self)

    def __repr__(self) -> str:
        return f"AsyncMachine({self.name!r})"

    async def _run_showing(
        self,
        stream: AsyncRunStream,
        on_output: Callable[[Stdout | Stderr | Display], Awaitable[None] | None] | None,
        on_input: Callable[[InputRequest], Awaitable[str | None] | str | None] | None,
        answers: Answers,
    ) -> Result:
        async with stream:
            async for event in stream:
                if isinstance(event, Stdout | Stderr | Display) and on_output is not None:
                    shown = on_output(event)
                    if shown is not None:
                        await shown
                elif (
                    isinstance(event, InputRequest)
                    and on_input is not None
                    and answers.wants(event, restarted=stream._state.restarted)
                ):
                    answer = on_input(event)
                    line = answer if answer is None or isinstance(answer, str) else await answer
                    await stream._answer(answers.body(line))
            return await stream.result()
