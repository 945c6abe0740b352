"""The instructions of one process: the clock of the one that runs, what they say, and where that goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from torpor_worker.adopting import Adoption
from torpor_worker.attached import Attached
from torpor_worker.instruction import Running
from torpor_worker.ledger import Entry, Hold, OutputRecord
from torpor_worker.output import OutputBatch
from torpor_worker.sandbox import Output, SandboxDied
from torpor_worker.services import Services
from torpor_worker.survivors import Clock, Origin
from torpor_worker.testament import Testament


class Instructions:
    """Used by one task. Sends frames, and hears output; an end is committed by whoever uses it."""

    def __init__(self, attached: Attached, services: Services, testament: Testament) -> None:
        self.running: Running | None = None
        self.said_bytes: int | None = None
        """Up to where the running one's output was heard, as the guest counts."""
        self._attached = attached
        self._services = services
        self._ledger = services.ledger
        self._config = services.config
        self._testament = testament
        self._loop = asyncio.get_running_loop()
        self._batch = OutputBatch()
        self._last_run: tuple[int, int] | None = None
        """Seq and attempt."""
        self._first_begun: int | None = None
        """The first seq that was begun in this process; the ledger has of it, and later ones, what the guest counts."""

    @property
    def last_seq(self) -> int:
        """The seq that ran last, or runs; -1 before the first of this process."""
        last_run = -1 if self._last_run is None else self._last_run[0]
        return last_run if self.running is None else self.running.seq

    # The one that runs.

    async def begin(self, entry: Entry, attempt: int, held_up_seconds: float) -> None:
        """Send an instruction's frame; its clock runs from here. It has waited for so long for saves."""
        if entry.position is None:
            raise ValueError(f"entry {entry.id} was not started")
        running = Running(entry, attempt, self._config)
        running.held_up_seconds = held_up_seconds
        if self._first_begun is None:
            self._first_begun = running.seq
        self.said_bytes = 0
        self.running = running
        running.start(self._loop.time())
        try:
            await self._attached.sandbox.execute(
                entry.position, running.seq, entry.code, replaying=False, stdin=entry.stdin
            )
        except SandboxDied:
            self.running = None
            raise

    async def go_on_with(self, hold: Hold, entry: Entry, *, recovering: bool) -> None:
        """Take up the instruction that runs in the snapshot, with the time that it used.

        If output came after the snapshot, or the process died in between, this is a new attempt at it.
        """
        head = hold.head
        if head is None:
            raise RuntimeError("nothing runs in an empty interpreter")
        running = Running(entry, entry.attempt, self._config, used_seconds=head.running_used_seconds)
        self.running = running
        self.said_bytes = head.running_said_bytes
        stored = await self._ledger.output_offset(hold, running.seq, entry.attempt)
        if recovering or stored != head.output_offset:
            running.attempt = await self._ledger.count_attempt(hold, running.seq, head.output_offset)
        running.start(self._loop.time())

    def take_over(self, adoption: Adoption) -> None:
        """Go on where the worker of before was."""
        self._first_begun = adoption.first_seq
        if adoption.last is not None and adoption.last.seq is not None:
            self._last_run = (adoption.last.seq, adoption.last.attempt)
        if adoption.running is not None:
            entry = adoption.running
            self.running = Running(entry, entry.attempt, self._config, used_seconds=adoption.used_seconds)
            self.running.start(self._loop.time())

    def ended(self, running: Running) -> None:
        """The result of the one that ran is committed."""
        self.running = None
        self._last_run = (running.seq, running.attempt)

    def clock(self, guest_seconds: float) -> Clock | None:
        """What a successor must know of the one that runs, by what the guest says of its time."""
        running = self.running
        if running is None:
            return None
        return Clock(running.seq, running.used_seconds(self._loop.time()), guest_seconds)

    # What they say.

    @property
    def unflushed(self) -> bool:
        """Whether output waits to be made durable."""
        return bool(self._batch)

    @property
    def flush_at(self) -> float | None:
        """When output that waits is to be made durable at the latest; None if none waits."""
        return self._batch.since + self._config.output_batch_seconds if self._batch else None

    def is_flush_due(self, now: float) -> bool:
        """Whether output waits that is to be made durable now."""
        flush_at = self.flush_at
        return flush_at is not None and (now >= flush_at or self._batch.size_bytes >= self._config.output_batch_bytes)

    async def hear(self, hold: Hold, output: Output) -> None:
        """Take what an instruction said, or what it left in the background."""
        # Foreground output of what does not run was said before the process was saved, and is in the log.
        current = self.running is not None and output.seq == self.running.seq
        if current:
            output = self._unheard(output)
        if output.data and output.seq is not None and (output.background or current):
            if not self._batch.accepts(output):
                await self.flush(hold)
            self._batch.add(output, self._loop.time())

    def _unheard(self, output: Output) -> Output:
        """What of the running instruction's output was not heard before: an image may have it that was taken since."""
        if output.offset is None:
            self.said_bytes = None
            return output
        end = output.offset + len(output.data)
        known = max(0, (self.said_bytes or 0) - output.offset) if self.said_bytes is not None else 0
        self.said_bytes = max(end, self.said_bytes or 0)
        return replace(output, data=output.data[known:], offset=output.offset + min(known, len(output.data)))

    async def output_offset(self, hold: Hold) -> int:
        """How much of the running one's output is durable; 0 if none runs."""
        running = self.running
        return 0 if running is None else await self._ledger.output_offset(hold, running.seq, running.attempt)

    async def flush(self, hold: Hold) -> None:
        """Make output durable that waits."""
        batch = self._batch
        if not batch or batch.seq is None:
            return
        seq, records, background = batch.seq, batch.records(), batch.background
        attempt = await self._attempt_of(hold, seq)
        if attempt is not None:
            await self._remember_origin(hold, seq, attempt, batch.offset)
            await self._services.durably(
                lambda: self._ledger.append_output(hold, seq, attempt, records, background=background)
            )
        batch.clear()

    def last_records(self, seq: int) -> list[OutputRecord] | None:
        """What of an instruction's output can be committed with its end; None if none waits, or that of another."""
        mine = self._batch and self._batch.seq == seq and not self._batch.background
        return self._batch.records() if mine else None

    def stored(self) -> None:
        """What waited was committed."""
        self._batch.clear()

    async def _remember_origin(self, hold: Hold, seq: int, attempt: int, offset: int | None) -> None:
        """Write down, before the first output is stored of what came with the snapshot, where it goes."""
        begun = self._first_begun is not None and seq >= self._first_begun
        if begun or offset is None or self._testament.has_origin(seq):
            return
        given_bytes = await self._ledger.output_given(hold, seq, attempt)
        await self._testament.write_origin(Origin(seq, attempt, given_bytes - offset))

    async def _attempt_of(self, hold: Hold, seq: int) -> int | None:
        """The attempt whose output this is: of what runs, or ran last, maybe before the machine slept.

        None if the log does not know it: it ran on the machine that this one was forked from, or before a rebuild.
        """
        if self.running is not None and self.running.seq == seq:
            return self.running.attempt
        if self._last_run is None or self._last_run[0] != seq:
            started = [entry for entry in await self._ledger.entries(hold, [seq]) if entry.position is not None]
            if not started:
                return None
            self._last_run = (seq, started[0].attempt)
        return self._last_run[1]
