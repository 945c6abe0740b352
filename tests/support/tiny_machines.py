"""Machines in this process: code is run by `exec` in a dictionary. For tests of the API alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import traceback
from typing import Any

from torpor_api.ledger import SqlLedger
from torpor_worker.ledger import EndedBy, Entry, Hold, InstructionResult, OutputRecord


class TinyMachines:
    """What the API asks of a worker, with the same ledger behind it.

    `wait()` in a machine's code waits until it is interrupted; `out(kind, bytes)` writes raw output.
    """

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self._holds: dict[str, Hold] = {}
        self._variables: dict[str, dict[str, Any]] = {}
        self._running: dict[str, tuple[int, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    async def start(self) -> None:
        await self._ledger.open_session("tiny")

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, machine: str) -> Hold:
        """The right to an awake machine."""
        return self._holds[machine]

    def deliver(self, machine: str, entry: Entry | None) -> None:
        task = asyncio.create_task(self._work(machine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def interrupt(self, machine: str, seq: int | None) -> int | None:
        running = self._running.get(machine)
        if running is None or seq not in (None, running[0]):
            return None
        running[1].set()
        return running[0]

    async def wake(self, machine: str) -> None:
        if machine not in self._holds:
            hold = await self._ledger.acquire(machine)
            assert hold is not None
            self._holds[machine] = hold
            await self._ledger.ready(hold)

    async def sleep(self, machine: str) -> bool:
        return self._holds.pop(machine, None) is not None

    async def sync(self, machine: str) -> None:
        pass

    async def discard(self, machine: str) -> None:
        self._holds.pop(machine, None)
        if machine in self._running:
            self._running[machine][1].set()

    async def _work(self, machine: str) -> None:
        async with self._locks.setdefault(machine, asyncio.Lock()):
            await self.wake(machine)
            hold = self._holds[machine]
            while (entry := await self._ledger.start_next(hold)) is not None:
                await self._run(hold, entry)

    async def _run(self, hold: Hold, entry: Entry) -> None:
        assert entry.seq is not None
        interrupted = asyncio.Event()
        self._running[hold.machine] = (entry.seq, interrupted)
        records: list[OutputRecord] = []
        waits = False

        def wait() -> None:
            nonlocal waits
            waits = True

        def out(kind: str, data: bytes) -> None:
            records.append(OutputRecord(kind, data))

        variables = self._variables.setdefault(hold.machine, {})
        variables |= {"wait": wait, "out": out}
        result, records_of_print = _evaluate(entry.code, variables)
        records[:0] = records_of_print
        ended_by = None
        if waits:
            await self._ledger.append_output(hold, entry.seq, entry.attempt, records, background=False)
            records = []
            await interrupted.wait()
            ended_by = EndedBy.INTERRUPT
            result = _failed(KeyboardInterrupt("interrupted"))
        del self._running[hold.machine]
        await self._ledger.finish(hold, entry.seq, entry.attempt, result, ended_by=ended_by, output=records)


def _evaluate(code: str, variables: dict[str, Any]) -> tuple[InstructionResult, list[OutputRecord]]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            try:
                value = repr(eval(compile(code, "<cell>", "eval"), variables))
            except SyntaxError:
                exec(compile(code, "<cell>", "exec"), variables)
                value = None
            result = InstructionResult(value=value, data={}, error=None, error_detail=None, runtime_ms=1)
        except Exception as error:
            result = _failed(error)
    pieces = (("stdout", stdout.getvalue()), ("stderr", stderr.getvalue()))
    return result, [OutputRecord(kind, text.encode("utf-8", "surrogateescape")) for kind, text in pieces if text]


def _failed(error: BaseException) -> InstructionResult:
    name, message = type(error).__name__, str(error)
    detail = {"name": name, "message": message, "traceback": traceback.format_exception(error)}
    return InstructionResult(value=None, data={}, error=f"{name}: {message}", error_detail=detail, runtime_ms=1)
