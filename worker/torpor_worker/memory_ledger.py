"""The in-memory twin of the ledger: the same conditions, nothing durable. For tests, here and elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from torpor_worker.command import CommandInput, CommandSignal, CommandSpec
from torpor_worker.ledger import (
    Durability,
    EndedBy,
    Ending,
    Entry,
    EntryKind,
    Fenced,
    Forgone,
    HeadMoved,
    Hold,
    InstructionResult,
    OutputRecord,
    Recovery,
    Snapshot,
    StoredTemplate,
)
from torpor_worker.stdin import Stdin


@dataclass(slots=True)
class MachineMemory:
    """All that is known of one machine."""

    name: str
    idle_seconds: float | None
    memory_bytes: int
    template: str | None = None
    durability: Durability = Durability.INTERVAL
    recovery: Recovery = Recovery.REPLAY
    replay_seconds: float = 300.0
    tries: int = 0
    deaths: int = 0
    session: str | None = None
    ready: bool = False
    epoch: int = 0
    line: int = 0
    head: Snapshot | None = None
    next_generation: int = 0
    next_position: int = 0
    parked: str | None = None
    parked_seq: int | None = None
    left_behind: set[int] = field(default_factory=set)
    """Positions that a recovery has not executed again, and none will."""
    log: list[Entry] = field(default_factory=list)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    replayed: list[int] = field(default_factory=list)
    waited_for_save_ms: dict[int, int] = field(default_factory=dict)
    output: dict[tuple[int, int], list[OutputRecord]] = field(default_factory=dict)
    background: dict[int, list[OutputRecord]] = field(default_factory=dict)
    notices: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def instruction(self, seq: int) -> Entry:
        """The entry of a seq."""
        return next(entry for entry in self.log if entry.seq == seq)

    def replace(self, entry: Entry, **changes: Any) -> Entry:
        """Put a changed entry in the place of one."""
        changed = dataclasses.replace(entry, **changes)
        self.log[self.log.index(entry)] = changed
        return changed

    def unfinished(self) -> list[Entry]:
        """Instructions and commands without a result, in order of acceptance."""
        return [entry for entry in self.log if entry.seq is not None and entry.result is None]

    def waiting(self) -> list[Entry]:
        """Those for which the machine is woken: what is in the background sleeps with it."""
        return [entry for entry in self.unfinished() if entry.is_awaited or entry.position is None]


class MemoryLedger:
    """Implements `Ledger`, and what a test needs of the API's side: machines, acceptance, deletion."""

    def __init__(self) -> None:
        self.machines: dict[str, MachineMemory] = {}
        self.templates: dict[str, tuple[str, str, StoredTemplate | None]] = {}
        """Version, key of the manifest, and what was committed, by name."""
        self.quarantine: dict[str, str] = {}
        """Why runtime series are quarantined."""
        self._sessions = 0
        self._entries = 0
        self._session: str | None = None

    # The API's side.

    def create(
        self, name: str, *, idle_seconds: float | None = 60.0, memory_bytes: int = 1 << 30, template: str | None = None
    ) -> MachineMemory:
        """A new machine: asleep, with its reseed as the first entry of its log."""
        machine = self.machines[name] = MachineMemory(name, idle_seconds, memory_bytes, template)
        self._entries += 1
        machine.log.append(
            Entry(self._entries, EntryKind.RESEED, None, 0, 1, timeout_seconds=0, seed=name.encode().ljust(32)[:32])
        )
        machine.next_position = 1
        return machine

    def accept(self, name: str, code: str, *, timeout_seconds: float = 15.0, stdin: Stdin | None = None) -> Entry:
        """Accept an instruction; started at once if the machine is awake and free."""
        machine = self.machines[name]
        busy = any(each.kind is EntryKind.EXECUTE for each in machine.unfinished())
        free = machine.ready and machine.session == self._session and not busy
        self._entries += 1
        seq = sum(entry.seq is not None for entry in machine.log)
        entry = Entry(self._entries, EntryKind.EXECUTE, seq, None, 0, timeout_seconds, code=code, stdin=stdin)
        machine.log.append(entry)
        return self._start(machine, entry) if free else entry

    def accept_command(
        self, name: str, spec: CommandSpec, *, timeout_seconds: float = 0.0, background: bool = False
    ) -> Entry:
        """Accept a command; started at once if the machine is awake."""
        seq = sum(entry.seq is not None for entry in self.machines[name].log)
        return self._accept_beside(
            name, EntryKind.COMMAND, spec.to_text(), seq, timeout_seconds=timeout_seconds, background=background
        )

    def accept_input(self, name: str, seq: int, piece: CommandInput) -> Entry:
        """Accept input for a command, or for an instruction that runs."""
        is_command = self.machines[name].instruction(seq).kind is EntryKind.COMMAND
        kind = EntryKind.COMMAND_INPUT if is_command else EntryKind.INPUT
        return self._accept_beside(name, kind, piece.to_text(), None, target=seq)

    def accept_signal(self, name: str, seq: int, sign: CommandSignal) -> Entry:
        """Accept a signal for a command."""
        return self._accept_beside(name, EntryKind.COMMAND_SIGNAL, sign.to_text(), None, target=seq)

    def _accept_beside(
        self,
        name: str,
        kind: EntryKind,
        text: str,
        seq: int | None,
        *,
        timeout_seconds: float = 0.0,
        background: bool = False,
        target: int | None = None,
    ) -> Entry:
        machine = self.machines[name]
        self._entries += 1
        entry = Entry(
            self._entries, kind, seq, None, 0, timeout_seconds, code=text, background=background, target=target
        )
        waits = any(
            one.position is None and one.result is None and one.kind is not EntryKind.EXECUTE for one in machine.log
        )
        machine.log.append(entry)
        at_once = machine.ready and machine.session == self._session and not waits
        return self._start(machine, entry) if at_once else entry

    def delete(self, name: str) -> None:
        """Delete a machine."""
        del self.machines[name]

    @staticmethod
    def _start(machine: MachineMemory, entry: Entry) -> Entry:
        started = machine.replace(entry, position=machine.next_position, attempt=1)
        machine.next_position += 1
        return started

    def _held(self, hold: Hold) -> MachineMemory:
        machine = self.machines.get(hold.machine)
        if machine is None or machine.session != self._session or machine.epoch != hold.epoch:
            raise Fenced
        return machine

    # The worker's side.

    async def open_session(self, worker: str) -> str:
        """See `Ledger`."""
        self._sessions += 1
        self._session = f"{worker}-{self._sessions}"
        for machine in self.machines.values():
            if machine.session is not None:
                machine.session, machine.ready = self._session, False
        return self._session

    async def mine(self) -> list[str]:
        """See `Ledger`."""
        return [machine.name for machine in self.machines.values() if machine.session == self._session]

    async def waiting(self) -> list[str]:
        """See `Ledger`."""
        waiting = [
            (machine.waiting()[0].id, machine.name)
            for machine in self.machines.values()
            if machine.session is None and machine.parked is None and machine.waiting()
        ]
        return [name for _, name in sorted(waiting)]

    async def acquire(self, machine: str) -> Hold | None:
        """See `Ledger`."""
        row = self.machines.get(machine)
        if row is None or row.parked is not None or row.session not in {None, self._session}:
            return None
        row.session, row.ready = self._session, False
        row.epoch += 1
        return self._hold(row)

    @staticmethod
    def _hold(row: MachineMemory) -> Hold:
        return Hold(
            row.name,
            "account",
            row.epoch,
            row.line,
            row.head,
            row.memory_bytes,
            row.idle_seconds,
            {"made": "for tests"},
            row.template,
            row.durability,
            row.recovery,
            row.replay_seconds,
            tries=row.tries,
            deaths=row.deaths,
        )

    async def settings(self, hold: Hold) -> Hold:
        """See `Ledger`."""
        row = self._held(hold)
        return dataclasses.replace(
            hold,
            idle_seconds=row.idle_seconds,
            memory_bytes=row.memory_bytes,
            durability=row.durability,
            recovery=row.recovery,
            replay_seconds=row.replay_seconds,
        )

    async def ready(self, hold: Hold) -> None:
        """See `Ledger`."""
        self._held(hold).ready = True

    async def behind(self, hold: Hold, position: int) -> list[Entry]:
        """See `Ledger`."""
        machine = self._held(hold)
        started = [
            (entry.position, entry)
            for entry in machine.log
            if entry.position is not None and entry.position not in machine.left_behind
        ]
        return [entry for at, entry in sorted(started, key=lambda pair: pair[0]) if at > position]

    async def entries(self, hold: Hold, seqs: Collection[int]) -> list[Entry]:
        """See `Ledger`."""
        found = [entry for entry in self._held(hold).log if entry.seq in seqs]
        return sorted(found, key=lambda entry: -1 if entry.position is None else entry.position)

    async def unfinished(self, hold: Hold) -> list[Entry]:
        """See `Ledger`."""
        started = [(entry.position, entry) for entry in self._held(hold).unfinished() if entry.position is not None]
        return [entry for _, entry in sorted(started, key=lambda pair: pair[0])]

    async def log_change(
        self, hold: Hold, text: str, body: str | None, body_bytes: int, *, behind: int
    ) -> Entry | None:
        """See `Ledger`."""
        if await self.behind(hold, behind):
            return None
        machine = self._held(hold)
        self._entries += 1
        entry = Entry(self._entries, EntryKind.FILE, None, None, 0, 0, code=text, body=body)
        machine.log.append(entry)
        return self._start(machine, entry)

    async def knows_change(self, hold: Hold, text: str) -> bool:
        """See `Ledger`."""
        made = [entry for entry in await self.behind(hold, -1) if entry.kind is EntryKind.FILE and not entry.undone]
        return any(entry.code == text for entry in made)

    async def undo_change(self, hold: Hold, position: int) -> None:
        """See `Ledger`."""
        machine = self._held(hold)
        entry = next(one for one in machine.log if one.position == position)
        machine.replace(entry, undone=True)

    async def start_next(self, hold: Hold, *, beside: bool = False) -> Entry | None:
        """See `Ledger`."""
        machine = self._held(hold)
        started = [
            entry for entry in machine.unfinished() if entry.position is not None and entry.kind is EntryKind.EXECUTE
        ]
        if started and not beside:
            return started[0]
        accepted = [
            entry
            for entry in machine.log
            if entry.position is None and entry.result is None and not (beside and entry.kind is EntryKind.EXECUTE)
        ]
        return self._start(machine, accepted[0]) if accepted else None

    async def count_attempt(self, hold: Hold, seq: int, output_offset: int, *, counted: bool = False) -> int:
        """See `Ledger`."""
        machine = self._held(hold)
        entry = machine.instruction(seq)
        inherited: list[OutputRecord] = []
        left = output_offset
        for record in machine.output.get((seq, entry.attempt), []):
            if left > 0:
                inherited.append(OutputRecord(record.kind, record.data[:left]))
                left -= len(record.data)
        entry = machine.replace(entry, attempt=entry.attempt + 1)
        machine.output[seq, entry.attempt] = inherited
        return entry.attempt

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
        """See `Ledger`. What is only to be counted is kept as zeros of another kind."""
        machine = self._held(hold)
        if skipped_bytes:
            records = [*records, OutputRecord("skipped", b"\0" * skipped_bytes)]
        if background:
            machine.background.setdefault(seq, []).extend(records)
        else:
            machine.output.setdefault((seq, attempt), []).extend(records)

    async def output_offset(self, hold: Hold, seq: int, attempt: int) -> int:
        """See `Ledger`."""
        return sum(len(record.data) for record in self._held(hold).output.get((seq, attempt), []))

    async def output_given(self, hold: Hold, seq: int, attempt: int) -> int:
        """See `Ledger`."""
        records = [*self._held(hold).output.get((seq, attempt), []), *self._held(hold).background.get(seq, [])]
        return sum(len(record.data) for record in records)

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
        """See `Ledger`."""
        machine = self._held(hold)
        entry = machine.instruction(seq)
        if entry.result is None:
            if output:
                await self.append_output(hold, seq, attempt, output, background=False)
            ended_behind = machine.next_position - 1
            machine.replace(entry, result=result, undone=undone, ended_by=ended_by, ended_behind=ended_behind)
            machine.waited_for_save_ms[seq] = waited_for_save_ms

    async def note_replay(self, hold: Hold, seq: int) -> None:
        """See `Ledger`."""
        self._held(hold).replayed.append(seq)

    async def undo(self, hold: Hold, seq: int, notice: str | None = None) -> None:
        """See `Ledger`."""
        machine = self._held(hold)
        machine.replace(machine.instruction(seq), undone=True)
        if notice is not None:
            machine.notices["undone"] = (notice, [seq])

    async def allot_save(self, hold: Hold) -> tuple[int, str]:
        """See `Ledger`."""
        machine = self._held(hold)
        generation = machine.next_generation
        machine.next_generation += 1
        return generation, f"{machine.name}/{generation}"

    async def facts(self, hold: Hold, running_seq: int | None, commands: Collection[int] = ()) -> dict[str, Any]:
        """See `Ledger`."""
        machine = self._held(hold)
        facts: dict[str, Any] = {"commands": {seq: {"code": machine.instruction(seq).code} for seq in commands}}
        if running_seq is not None:
            running = machine.instruction(running_seq)
            facts["running"] = {"code": running.code, "timeout_seconds": running.timeout_seconds}
        return facts

    async def commit_snapshot(
        self, hold: Hold, expected_head: int | None, snapshot: Snapshot, ending: Ending | None = None
    ) -> None:
        """See `Ledger`."""
        machine = self._held(hold)
        head = None if machine.head is None else machine.head.generation
        if head == snapshot.generation:
            return
        if head != expected_head:
            raise HeadMoved
        machine.head = machine.snapshots[snapshot.generation] = snapshot
        if ending is not None:
            await self.finish(
                hold,
                ending.seq,
                ending.attempt,
                ending.result,
                ended_by=ending.ended_by,
                waited_for_save_ms=ending.waited_for_save_ms,
            )
        quiescent = sorted(number for number, one in machine.snapshots.items() if one.quiescent)
        oldest = quiescent[-2] if len(quiescent) > 1 else 0
        for number, one in list(machine.snapshots.items()):
            if number < (oldest if one.quiescent else snapshot.generation):
                del machine.snapshots[number]

    async def generations(self, hold: Hold) -> list[Snapshot]:
        """See `Ledger`."""
        return [snapshot for _, snapshot in sorted(self._held(hold).snapshots.items(), reverse=True)]

    async def go_back(self, hold: Hold, to: int | None, notice: str | None = None) -> Hold:
        """See `Ledger`."""
        machine = self._held(hold)
        if notice is not None:
            machine.notices["set_aside"] = (notice, [])
        machine.head = None if to is None else machine.snapshots[to]
        machine.tries = machine.deaths = 0
        return self._new_line(machine)

    def _new_line(self, machine: MachineMemory) -> Hold:
        machine.line += 1
        machine.epoch += 1
        machine.ready = False
        return self._hold(machine)

    async def forgo(self, hold: Hold, forgone: Forgone) -> Hold:
        """See `Ledger`."""
        machine = self._held(hold)
        for seq in forgone.cut_short:
            entry = machine.instruction(seq)
            result = entry.result or forgone.answer
            machine.replace(entry, result=result, ended_by=entry.ended_by or EndedBy.INTERRUPT)
        for entry in list(machine.log):
            if entry.position is None or entry.position <= forgone.position:
                continue
            if entry.kind.has_seq and entry.result is None:
                if entry.seq not in forgone.unfinished:
                    machine.replace(entry, position=None, attempt=0)
                    continue
                machine.replace(entry, result=forgone.answer, undone=True)
            if entry.id in forgone.waiting:
                machine.replace(entry, position=None, attempt=0)
                continue
            machine.left_behind.add(entry.position)
            if entry.kind is EntryKind.FILE and not entry.undone:
                self._entries += 1
                copy = dataclasses.replace(entry, id=self._entries, position=None)
                machine.log.append(copy)
                self._start(machine, copy)
        machine.notices["effects_lost"] = (forgone.message, forgone.seqs)
        return self._new_line(machine)

    async def count_try(self, hold: Hold) -> None:
        """See `Ledger`."""
        self._held(hold).tries += 1

    async def count_death(self, hold: Hold, deaths: int) -> None:
        """See `Ledger`."""
        self._held(hold).deaths = deaths

    async def clear_tries(self, hold: Hold, *, deaths: bool) -> None:
        """See `Ledger`."""
        machine = self._held(hold)
        machine.tries = 0
        machine.deaths = 0 if deaths else machine.deaths

    async def release(self, hold: Hold, head: int, *, draining: bool = False) -> bool:
        """See `Ledger`."""
        machine = self._held(hold)
        if machine.head is None or machine.head.generation != head:
            return False
        behind = [
            entry
            for entry in machine.log
            if entry.position is not None
            and entry.position > machine.head.position
            and entry.position not in machine.left_behind
        ]
        running = {machine.head.running_seq, *(each.seq for each in machine.head.commands)}
        unfinished = [
            entry
            for entry in machine.unfinished()
            if not (draining and entry.position is None)
            and not (entry.seq in running and (draining or not entry.is_awaited))
        ]
        if behind or unfinished:
            return False
        machine.session, machine.ready = None, False
        machine.tries = machine.deaths = 0
        return True

    async def park(self, hold: Hold, reason: str, seq: int | None = None) -> None:
        """See `Ledger`."""
        machine = self._held(hold)
        machine.session, machine.ready, machine.parked, machine.parked_seq = None, False, reason, seq
        failure = InstructionResult(None, {}, f"MachineParked: {reason}", None, 0)
        for entry in machine.unfinished():
            machine.replace(entry, result=failure)

    async def stored_template(self, name: str, version: str) -> StoredTemplate | None:
        """See `Ledger`."""
        known, _, stored = self.templates.get(name, ("", "", None))
        return stored if known == version else None

    async def allot_template(self, name: str, version: str) -> str:
        """See `Ledger`."""
        key = f"templates/{name}-{len(self.templates)}/image"
        self.templates[name] = (version, key, None)
        return key

    async def commit_template(self, name: str, stored: StoredTemplate, stored_bytes: int) -> None:
        """See `Ledger`."""
        version, key, _ = self.templates[name]
        if key == stored.manifest_key:
            self.templates[name] = (version, key, stored)

    async def quarantined(self) -> dict[str, str]:
        """See `Ledger`."""
        return dict(self.quarantine)

    async def notice(self, hold: Hold, code: str, message: str, seqs: list[int]) -> None:
        """See `Ledger`."""
        self._held(hold).notices[code] = (message, seqs)

    async def clear_notices(self, hold: Hold, *codes: str) -> None:
        """See `Ledger`."""
        machine = self._held(hold)
        for code in codes or list(machine.notices):
            machine.notices.pop(code, None)

    async def event(self, machine: str, action: str, **fields: Any) -> None:
        """See `Ledger`."""
        if machine in self.machines:
            self.machines[machine].events.append((action, fields))
