"""How what runs in a process ends: its result is committed, and with a save if the machine is so durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from torpor_worker import results
from torpor_worker.bell import Bell
from torpor_worker.commands import Over
from torpor_worker.errors import ProcessDied, SaveRefused
from torpor_worker.instruction import Running
from torpor_worker.ledger import Durability, EndedBy, Ending, Fenced, InstructionResult, OutputRecord
from torpor_worker.process import Process
from torpor_worker.sandbox import Result
from torpor_worker.services import Services
from torpor_worker.suspicion import Suspicion
from torpor_worker.wake_timer import WakeTimer


class Ends:
    """Commits the ends of one process's instructions and commands, each with what it said last."""

    def __init__(
        self, process: Process, services: Services, bell: Bell, suspicion: Suspicion, timer: WakeTimer
    ) -> None:
        """`timer`: of the wake that brought the process back."""
        self.dead = False
        """The process is gone: nothing more can be saved."""
        self._process = process
        self._services = services
        self._ledger = services.ledger
        self._bell = bell
        self._suspicion = suspicion
        self._timer = timer
        self._loop = asyncio.get_running_loop()

    async def finish_commands(self) -> None:
        """Commit the ends of commands, and only then let the guest forget them."""
        commands = self._process.commands
        while commands.over:
            await self._finish_command(commands.over[0])
            del commands.over[0]

    async def _finish_command(self, over: Over) -> None:
        process, commands = self._process, self._process.commands
        seq, ended_by = over.running.seq, over.ended_by
        if commands.last_records(seq) is None:
            await commands.flush(process.hold)
        if over.entry.is_awaited and not process.busy:
            process.saver.ran(over.used_seconds)
        else:
            process.saver.happened(0)
        result = self._with_wake(over.result, seq)
        if not await self._finish_with_a_save(over.running, result, ended_by):
            records, undone = commands.last_records(seq), over.is_unsupported
            await self._services.durably(
                lambda: self._ledger.finish(
                    process.hold,
                    seq,
                    over.running.attempt,
                    result,
                    undone=undone,
                    ended_by=ended_by,
                    output=records,
                )
            )
            commands.stored(seq)
            process.capture_first = process.capture_first or ended_by is EndedBy.TIMEOUT
        await self._finished()

    async def finish(self, event: Result, running: Running) -> None:
        """Commit a result, with what output is left."""
        process, instructions = self._process, self._process.instructions
        now = self._loop.time()
        running.pause(now)
        if instructions.last_records(running.seq) is None:
            await instructions.flush(process.hold)
        if not running.steps:
            # An interrupt was wished for and came to nothing: it ended by itself, and a replay may run it again.
            running.ended_by = None
        ended_by = running.ended_by  # from here on an interrupt comes too late
        result = self._with_wake(results.answered(event, running), running.seq)
        process.saver.ran(running.used_seconds(now), len(running.entry.code))
        if not await self._finish_with_a_save(running, result, ended_by):
            records = instructions.last_records(running.seq)
            held_up_ms = round(1000 * running.held_up_seconds)
            await self._services.durably(
                lambda: self._ledger.finish(
                    process.hold,
                    running.seq,
                    running.attempt,
                    result,
                    ended_by=ended_by,
                    output=records,
                    waited_for_save_ms=held_up_ms,
                )
            )
            instructions.stored()
            self._note_hold_up(running.held_up_seconds)
            process.capture_first = process.capture_first or ended_by is not None
        instructions.ended(running)
        if process.busy:
            process.saver.runs()
        committed_seconds = self._loop.time() - now
        self._services.metrics.instruction_seconds.observe(running.used_seconds(now) + committed_seconds)
        await self._finished()

    def _with_wake(self, result: InstructionResult, seq: int) -> InstructionResult:
        return replace(result, wake_ms=self._timer.milliseconds) if seq == self._process.woken_for else result

    async def _finished(self) -> None:
        """This process has finished a new entry."""
        self._process.hold_ups.forget()
        self._suspicion.prove()
        if self._suspicion.counted:
            await self._services.durably(lambda: self._ledger.clear_tries(self._process.hold, deaths=True))
            self._suspicion.counted = False

    async def answer_dead(self, ended: Running, reason: str, output: list[OutputRecord]) -> None:
        """Answer what ran when its process died: it is undone."""
        now = self._loop.time()
        ended.pause(now)
        result = results.died(ended, reason, now)
        await self._services.durably(
            lambda: self._ledger.finish(
                self._process.hold,
                ended.seq,
                ended.attempt,
                result,
                undone=True,
                ended_by=ended.ended_by,
                output=output,
            )
        )

    async def _finish_with_a_save(self, running: Running, result: InstructionResult, ended_by: EndedBy | None) -> bool:
        """Save the machine and commit the result with that, for as long as it takes, if the machine is so durable.

        False if it is not, or not any more. Until then nothing that is said is heard, so that what comes behind the
        result stays behind it; the guest says no more than its window holds.
        """
        process = self._process
        ended_at = self._loop.time()

        def ending() -> Ending:
            held_up_ms = round(1000 * (running.held_up_seconds + self._loop.time() - ended_at))
            return Ending(running.seq, running.attempt, result, ended_by, held_up_ms)

        while process.hold.durability is Durability.INSTRUCTION:
            if self.dead or process.attached.ended:
                raise ProcessDied("it ended before it was saved with the result")
            await process.flush()
            if await self._save_and_wait(ending, running):
                self._note_hold_up(running.held_up_seconds + self._loop.time() - ended_at)
                return True
            await self._bell.wait(process.saver.facts.retry_at)
            await process.apply_settings()
        return False

    def _note_hold_up(self, seconds: float) -> None:
        if seconds > 0:
            self._services.metrics.instruction_save_wait_seconds.observe(seconds)

    async def _save_and_wait(self, ending: Callable[[], Ending], ended: Running) -> bool:
        """Capture it once more and wait until that is committed, or has failed."""
        process, saver = self._process, self._process.saver
        retry_at = saver.facts.retry_at
        if retry_at is not None and self._loop.time() < retry_at:
            return False
        try:
            await process.ping()
            running = process.running if process.running is not ended else None
            offset = 0 if running is None else await process.instructions.output_offset(process.hold)
            generation = await process.capture(offset, running, ending)
        except SaveRefused:
            return False
        while saver.busy and not saver.has_committed(generation):
            await self._bell.wait()
        if saver.fenced:
            raise Fenced
        return saver.has_committed(generation)
