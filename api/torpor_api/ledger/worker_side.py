"""What a worker asks of the truth: the `Ledger` of `torpor_worker.ledger`, in SQL."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from sqlalchemy import Connection

from torpor_api.ledger import entries, holds, notices, recoveries, retention, saves, templates
from torpor_api.ledger import facts as machine_facts
from torpor_api.ledger.changes import Changes
from torpor_api.ledger.outcome import outcome
from torpor_api.ledger.output import STREAMED_INLINE_LIMIT_BYTES, OutputLog, Sequence, output_end, output_given
from torpor_api.ledger.readers import Readers
from torpor_api.ledger.rows import Outcome
from torpor_api.ledger.segments import Segments
from torpor_api.ledger.writer import Writer
from torpor_worker.ledger import (
    EndedBy,
    Ending,
    Entry,
    Forgone,
    Hold,
    InstructionResult,
    OutputRecord,
    Snapshot,
    StoredTemplate,
)

T = TypeVar("T")


class WorkerSide:
    """Implements `Ledger`. Each method is one transaction, durable when it returns.

    But for `acquire` and `start_next`: what they change, only a process of this host acts on, and all that comes of it
    is committed behind them.
    """

    _writer: Writer
    _readers: Readers
    _output_log: OutputLog
    _segments: Segments
    changes: Changes
    _session: str | None = None

    async def open_session(self, worker: str) -> str:
        """Open this worker's session and take over every machine whose session is set; the session's id."""
        self._session = await self._writer.run(lambda connection: holds.open_session(connection, worker))
        return self._session

    async def mine(self) -> list[str]:
        """Machines whose session is this one."""
        session = self._session
        return await self._readers.run(lambda connection: holds.mine(connection, session))

    async def waiting(self) -> list[str]:
        """Machines with unfinished entries and no session, those that have waited longest first."""
        return await self._readers.run(holds.waiting)

    async def acquire(self, machine: str) -> Hold | None:
        """Set the session, raise the epoch. None if it is parked, deleted, or held by another live session."""
        session = self._session
        if session is None:
            raise RuntimeError("open a session first")
        return await self._writer.run(lambda connection: holds.acquire(connection, session, machine), early=True)

    async def settings(self, hold: Hold) -> Hold:
        """The hold with the machine's settings and tags as they are now."""
        return await self._read(hold, lambda connection, machine_id: holds.settings(connection, machine_id, hold))

    async def ready(self, hold: Hold) -> None:
        """From now on an entry accepted while the machine is free is started in the same transaction."""
        session = self._session
        await self._writer.run(lambda connection: holds.ready(connection, session, hold), touches=hold.machine)

    async def behind(self, hold: Hold, position: int) -> list[Entry]:
        """Started entries with a position above `position`, in order; undone ones too."""
        return await self._read(hold, lambda connection, machine_id: entries.behind(connection, machine_id, position))

    async def entries(self, hold: Hold, seqs: Collection[int]) -> list[Entry]:
        """Instructions and commands by seq, those that there are, in order of position."""
        return await self._read(hold, lambda connection, machine_id: entries.by_seq(connection, machine_id, seqs))

    async def unfinished(self, hold: Hold) -> list[Entry]:
        """What was started and has no end yet, in order of position."""
        return await self._read(hold, entries.unfinished)

    async def start_next(self, hold: Hold, *, beside: bool = False) -> Entry | None:
        """The instruction that runs, or else the oldest accepted entry, started now (attempt 1); None without one.

        `beside`: an instruction runs; only what is none is started.
        """
        session = self._session
        return await self._writer.run(
            lambda connection: entries.start_next(connection, holds.held(connection, session, hold), beside=beside),
            early=True,
        )

    async def count_attempt(self, hold: Hold, seq: int, output_offset: int, *, counted: bool = False) -> int:
        """Begin a new attempt that inherits the output before `output_offset`; its number."""
        return await self._write(
            hold,
            lambda connection, machine_id: entries.count_attempt(
                connection, machine_id, seq, output_offset, counted=counted
            ),
        )

    async def append_output(
        self,
        hold: Hold,
        seq: int,
        attempt: int,
        records: list[OutputRecord],
        *,
        background: bool,
        skipped_bytes: int = 0,
    ) -> None:
        """Store output up to the output limit, and count the rest.

        What comes for an instruction that has its result is background output whatever the flag says, and the other
        way round: so foreground output never follows background output. Raises ValueError for an attempt that is over.
        """

        def work(connection: Connection, machine_id: int) -> None:
            sequence = self._sequence(connection, hold, machine_id, seq, attempt)
            self._output_log.append(
                connection,
                sequence,
                records,
                inline_limit_bytes=STREAMED_INLINE_LIMIT_BYTES,
                skipped_bytes=skipped_bytes,
            )

        await self._write(hold, work)

    async def output_offset(self, hold: Hold, seq: int, attempt: int) -> int:
        """Bytes of output stored so far for this attempt, with those it inherited."""

        def work(connection: Connection, machine_id: int) -> int:
            known = entries.running_attempt(connection, machine_id, seq)
            return 0 if known is None else output_end(connection, known[0], attempt)

        return await self._read(hold, work)

    async def output_given(self, hold: Hold, seq: int, attempt: int) -> int:
        """Bytes of output given so far for this attempt: stored, inherited, or counted beyond the limit."""

        def work(connection: Connection, machine_id: int) -> int:
            known = entries.running_attempt(connection, machine_id, seq)
            return 0 if known is None else output_given(connection, known[0], attempt)

        return await self._read(hold, work)

    async def finish(
        self,
        hold: Hold,
        seq: int,
        attempt: int,
        result: InstructionResult,
        *,
        undone: bool = False,
        ended_by: EndedBy | None = None,
        output: list[OutputRecord] | None = None,
        waited_for_save_ms: int = 0,
    ) -> None:
        """Commit a result, and in the same step what output is left. If the seq has one already, that stays.

        Raises ValueError for an attempt that was not begun or is over.
        """
        ending = Ending(seq, attempt, result, ended_by, waited_for_save_ms)
        await self._writer.run(
            lambda connection: self._finish(connection, hold, ending, undone=undone, output=output),
            touches=hold.machine,
            soon=lambda found: self._finishes(hold, seq, found),
            then=lambda found: self._finished(hold, seq, found),
        )

    def _finish(
        self,
        connection: Connection,
        hold: Hold,
        ending: Ending,
        *,
        undone: bool = False,
        output: list[OutputRecord] | None = None,
    ) -> Outcome | None:
        """What whoever waits for it is handed, if somebody does: a read after the commit would cost more."""
        if entries.finish(
            connection,
            self._output_log,
            machine=hold.machine,
            epoch=hold.epoch,
            session=self._session,
            seq=ending.seq,
            attempt=ending.attempt,
            result=ending.result,
            undone=undone,
            ended_by=ending.ended_by,
            output=output,
            waited_for_save_ms=ending.waited_for_save_ms,
        ):
            awaited = self.changes.is_awaited(hold.machine, ending.seq)
            return outcome(connection, self._segments, hold.account, hold.machine, ending.seq) if awaited else None
        known = entries.running_attempt(connection, holds.held(connection, self._session, hold), ending.seq)
        if known is None or not known[2]:
            raise ValueError(f"attempt {ending.attempt} of instruction {ending.seq} is not the one that runs")
        return None

    def _finishes(self, hold: Hold, seq: int, found: Outcome | None) -> None:
        if found is not None:
            self.changes.coming(hold.machine, seq, found)

    def _finished(self, hold: Hold, seq: int, found: Outcome | None) -> None:
        if found is not None:
            self.changes.finished(hold.machine, seq, found)

    async def note_replay(self, hold: Hold, seq: int) -> None:
        """Remember that a finished instruction was executed again."""
        await self._write(hold, lambda connection, machine_id: entries.note_replay(connection, machine_id, seq))

    async def undo(self, hold: Hold, seq: int, notice: str | None = None) -> None:
        """Mark a finished instruction as undone: it is never replayed."""

        def work(connection: Connection, machine_id: int) -> None:
            entries.undo(connection, machine_id, seq)
            if notice is not None:
                notices.leave(connection, machine_id, "undone", notice, [seq])

        await self._write(hold, work)

    async def allot_save(self, hold: Hold) -> tuple[int, str]:
        """A new generation number and the key of its object, registered before it is put."""
        return await self._write(hold, lambda connection, machine_id: saves.allot(connection, machine_id, hold.machine))

    async def facts(self, hold: Hold, running_seq: int | None, commands: Collection[int] = ()) -> dict[str, Any]:
        """What a manifest is to say of the machine as it is now."""
        return await self._read(
            hold, lambda connection, machine_id: machine_facts.facts(connection, machine_id, running_seq, commands)
        )

    async def commit_snapshot(
        self, hold: Hold, expected_head: int | None, snapshot: Snapshot, ending: Ending | None = None
    ) -> None:
        """Make it the head if the head is still generation `expected_head`. Idempotent. Raises `HeadMoved`.

        With `ending`, the result of the instruction that ended in it is committed in the same step, as by `finish`.
        """
        session = self._session

        def work(connection: Connection) -> Outcome | None:
            machine_id = holds.held(connection, session, hold)
            saves.commit(connection, machine_id, expected_head, snapshot)
            retention.thin_out(connection, machine_id)
            return None if ending is None else self._finish(connection, hold, ending)

        def then(found: Outcome | None) -> None:
            if ending is not None:
                self._finished(hold, ending.seq, found)

        await self._writer.run(work, touches=hold.machine, then=then)

    async def generations(self, hold: Hold) -> list[Snapshot]:
        """The head and the snapshots it came from that are not condemned, newest first."""
        return await self._read(hold, saves.line_of_descent)

    async def go_back(self, hold: Hold, to: int | None, notice: str | None = None) -> Hold:
        """Set the head aside for an older generation (None: the empty interpreter), on a new line. The new hold."""
        session = self._session

        def work(connection: Connection) -> Hold:
            if notice is not None:
                notices.leave(connection, holds.held(connection, session, hold), "set_aside", notice, [])
            return holds.go_back(connection, session, hold, to)

        return await self._writer.run(work, touches=hold.machine)

    async def forgo(self, hold: Hold, forgone: Forgone) -> Hold:
        """Leave behind what was started behind a position, on a new line. The new hold."""
        session = self._session
        return await self._writer.run(
            lambda connection: recoveries.forgo(connection, session, hold, forgone), touches=hold.machine
        )

    async def count_try(self, hold: Hold) -> None:
        """The head is about to be brought back after a death."""
        await self._write(hold, recoveries.count_try)

    async def count_death(self, hold: Hold, deaths: int) -> None:
        """So many processes of the head have died before they finished a new entry."""
        await self._write(hold, lambda connection, machine_id: recoveries.count_death(connection, machine_id, deaths))

    async def clear_tries(self, hold: Hold, *, deaths: bool) -> None:
        """Its process has lived for a while, or (`deaths`) finished a new entry."""
        await self._write(
            hold, lambda connection, machine_id: recoveries.clear_tries(connection, machine_id, deaths=deaths)
        )

    async def release(self, hold: Hold, head: int, *, draining: bool = False) -> bool:
        """Put it to sleep if the head is `head` and nothing lies behind it; False, and no change, otherwise."""
        session = self._session
        return await self._writer.run(
            lambda connection: holds.release(connection, session, hold, head, draining=draining), touches=hold.machine
        )

    async def park(self, hold: Hold, reason: str, seq: int | None = None) -> None:
        """Give up on it: clear the session and remember why; its entries that are unfinished get an error."""
        session = self._session
        await self._writer.run(
            lambda connection: holds.park(connection, session, hold, reason, seq), touches=hold.machine
        )

    async def stored_template(self, name: str, version: str) -> StoredTemplate | None:
        """Where the store has this version of a template; None if it does not."""
        return await self._readers.run(lambda connection: templates.stored(connection, name, version))

    async def allot_template(self, name: str, version: str) -> str:
        """The key under which a template's manifest will be stored, known before it is put; earlier ones may go."""
        return await self._writer.run(lambda connection: templates.allot(connection, name, version))

    async def commit_template(self, name: str, stored: StoredTemplate, stored_bytes: int) -> None:
        """It is stored under the key that was allotted last: from now on snapshots may refer to its pack."""
        await self._writer.run(lambda connection: templates.commit(connection, name, stored, stored_bytes))

    async def notice(self, hold: Hold, code: str, message: str, seqs: list[int]) -> None:
        """Leave a notice for the machine's users. One of the same code that is still unread is replaced."""
        await self._write(
            hold, lambda connection, machine_id: notices.leave(connection, machine_id, code, message, seqs)
        )

    async def clear_notices(self, hold: Hold, *codes: str) -> None:
        """Forget notices: those of these codes, or all."""
        await self._write(hold, lambda connection, machine_id: notices.clear(connection, machine_id, codes))

    async def event(self, machine: str, action: str, **fields: Any) -> None:
        """Write to the machine's history of events, for operators."""
        await self._writer.run(lambda connection: notices.record(connection, machine, action, fields))

    async def _write(self, hold: Hold, work: Callable[[Connection, int], T]) -> T:
        session = self._session
        return await self._writer.run(
            lambda connection: work(connection, holds.held(connection, session, hold)), touches=hold.machine
        )

    async def _read(self, hold: Hold, work: Callable[[Connection, int], T]) -> T:
        session = self._session
        return await self._readers.run(lambda connection: work(connection, holds.held(connection, session, hold)))

    @staticmethod
    def _sequence(connection: Connection, hold: Hold, machine_id: int, seq: int, attempt: int) -> Sequence:
        known = entries.running_attempt(connection, machine_id, seq)
        if known is None or known[1] != attempt:
            raise ValueError(f"attempt {attempt} of instruction {seq} is not the newest one")
        return Sequence(hold.machine, machine_id, known[0], attempt, background=known[2])
