"""Points of a machine's history: the generations that are kept, and the states that a replay can reach from them.

Condition of docs/protocol: ROLL_BACK_FROM_COMPLETE_HEAD.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, exists, func, select

from torpor_api.errors import InstructionNotFound, PointUnreachable, SnapshotNotFound
from torpor_api.ledger import running, saves
from torpor_api.ledger.lines import Reach, descent
from torpor_api.ledger.rows import Place, Point, SnapshotRow, TailEntry
from torpor_api.ledger.schema import entries, machines
from torpor_worker.ledger import EndedBy, EntryKind, Snapshot

ENDINGS = {EndedBy.TIMEOUT: "a time-out", EndedBy.INTERRUPT: "an interrupt", EndedBy.SIGNAL: "a signal"}


def snapshots_of(connection: Connection, machine_id: int) -> list[SnapshotRow]:
    """Every snapshot of the machine that is kept, newest first."""
    head = connection.scalar(select(machines.c.head_generation).where(machines.c.id == machine_id))
    finished = connection.execute(
        select(entries.c.seq, entries.c.position, entries.c.line)
        .where(entries.c.machine_id == machine_id, entries.c.seq.is_not(None), entries.c.finished_at.is_not(None))
        .where(entries.c.position.is_not(None))
        .order_by(entries.c.position.desc())
    ).all()
    rows = []
    for snapshot in saves.all_kept(connection, machine_id):
        reaches = descent(connection, machine_id, snapshot.line, position=snapshot.position)
        limits = {reach.line: reach.position for reach in reaches}
        seqs = (row.seq for row in finished if row.position <= limits.get(row.line, -1))
        inside = {snapshot.running_seq, *(each.seq for each in snapshot.commands)}
        seq = next((seq for seq in seqs if seq not in inside), None)
        rows.append(SnapshotRow(snapshot, seq, current=snapshot.generation == head))
    return rows


def complete_head(connection: Connection, machine_id: int, *, but_reseeds: bool = False) -> Snapshot | None:
    """The machine's head, if it is quiescent and has all that the machine did since, or all but a reseed; else None."""
    head = connection.scalar(select(machines.c.head_generation).where(machines.c.id == machine_id))
    snapshot = None if head is None else saves.snapshot(connection, machine_id, head)
    if snapshot is None or not snapshot.quiescent:
        return None
    behind = exists().where(
        entries.c.machine_id == machine_id, entries.c.position > snapshot.position, entries.c.rolled_back == 0
    )
    if but_reseeds:
        behind = behind.where(entries.c.kind != EntryKind.RESEED)
    return None if connection.scalar(select(behind)) else snapshot


def place(connection: Connection, machine_id: int, point: Point) -> Place:
    """Find a point. Raises `SnapshotNotFound`, `InstructionNotFound`, `PointUnreachable`."""
    if point.generation is not None:
        return _place_of_generation(connection, machine_id, point.generation)
    if point.seq is None:
        raise ValueError("a point names a generation or a seq")
    return _place_of_seq(connection, machine_id, point.seq)


def _place_of_generation(connection: Connection, machine_id: int, generation: int) -> Place:
    snapshot = saves.snapshot(connection, machine_id, generation)
    if snapshot is None:
        raise SnapshotNotFound
    if not snapshot.quiescent:
        numbers = [one.generation for one in saves.all_kept(connection, machine_id) if one.quiescent]
        earlier = max((number for number in numbers if number < generation), default=None)
        later = min((number for number in numbers if number > generation), default=None)
        raise PointUnreachable(
            f"{_what_ran(snapshot)} was running when generation {generation} was saved.",
            hint=_hint([Point(generation=number) for number in (earlier, later) if number is not None]),
        )
    if snapshot.base:  # without its reseed it would have the randomness of the machine that it was forked from
        after = _tail(connection, machine_id, snapshot.line, snapshot.position, snapshot.position + 1)
        if after and after[0].seq is None:
            return Place(snapshot, snapshot.line, snapshot.position + 1, after)
    return Place(snapshot, snapshot.line, snapshot.position, [])


def _place_of_seq(connection: Connection, machine_id: int, seq: int) -> Place:
    entry = connection.execute(
        select(entries.c.line, _with_what_it_read(machine_id, seq), entries.c.finished_at, entries.c.rolled_back).where(
            entries.c.machine_id == machine_id, entries.c.seq == seq
        )
    ).first()
    machine = connection.execute(
        select(machines.c.line, machines.c.rebuilt_line, machines.c.rebuilt_seq).where(machines.c.id == machine_id)
    ).one()
    if entry is None and machine.rebuilt_seq is not None and seq < machine.rebuilt_seq:
        raise _lost(connection, machine_id, seq)
    if entry is None:
        raise InstructionNotFound
    if entry.finished_at is None:
        raise PointUnreachable(f"Instruction {seq} is not finished.", hint="Wait for it, or choose an earlier point.")
    if entry.position is None:
        raise PointUnreachable(f"Instruction {seq} never ran.", hint="Choose an earlier point.")
    line = int(entry.line) if entry.rolled_back else int(machine.line)
    kept = saves.of_reach(connection, machine_id, descent(connection, machine_id, line))
    usable = [one for one in kept if one.quiescent and one.position <= entry.position]
    snapshot = max(usable, key=lambda one: (one.position, one.generation), default=None)
    reaches = descent(connection, machine_id, line, position=entry.position)
    if machine.rebuilt_line is not None and _lacks_log(reaches, snapshot, machine.rebuilt_line):
        raise _lost(connection, machine_id, seq)
    tail = _tail(connection, machine_id, line, -1 if snapshot is None else snapshot.position, entry.position)
    for number, row in enumerate(tail):
        if (row.expired or row.ended_by is not None) and not row.undone:
            earlier = next((one.seq for one in reversed(tail[:number]) if one.seq is not None), None)
            later = [one for one in kept if one.quiescent and one.position >= entry.position]
            nearest = [] if earlier is None or row.expired else [Point(seq=earlier)]
            if not nearest and snapshot is not None:
                nearest.append(Point(generation=snapshot.generation))
            if later:
                nearest.append(Point(generation=min(later, key=lambda one: one.position).generation))
            what = "A change of files" if row.seq is None else f"Instruction {row.seq}"
            why = "is not kept any more"
            if row.ended_by is not None:
                why = f"was ended by {ENDINGS[EndedBy(row.ended_by)]}"
            raise PointUnreachable(
                f"{what} {why}, so it cannot be done again to reach instruction {seq}.",
                hint=_hint(nearest),
            )
    return Place(snapshot, line, entry.position, [row for row in tail if not row.undone])


def _with_what_it_read(machine_id: int, seq: int) -> ColumnElement[int | None]:
    """The position of an instruction, or of the last input that it was sent while it ran."""
    read = entries.alias("read")
    last = (
        select(func.max(read.c.position))
        .where(read.c.machine_id == machine_id, read.c.kind == EntryKind.INPUT, read.c.target == seq)
        .scalar_subquery()
    )
    return func.coalesce(last, entries.c.position).label("position")


def _tail(connection: Connection, machine_id: int, line: int, above: int, up_to: int) -> list[TailEntry]:
    limits = {reach.line: reach.position for reach in descent(connection, machine_id, line, position=up_to)}
    rows = connection.execute(
        select(
            entries.c.id,
            entries.c.seq,
            entries.c.position,
            entries.c.line,
            entries.c.undone,
            entries.c.ended_by,
            entries.c.expired,
            entries.c.target,
            entries.c.ended_line,
            entries.c.ended_behind,
        )
        .where(entries.c.machine_id == machine_id, entries.c.position > above, entries.c.position <= up_to)
        .order_by(entries.c.position)
    )
    return [
        TailEntry(
            row.id,
            row.seq,
            bool(row.undone),
            row.ended_by,
            bool(row.expired),
            row.target,
            running.is_ended(row.ended_line, row.ended_behind, limits),
        )
        for row in rows
        if row.position <= limits.get(row.line, -1)
    ]


def _lacks_log(reaches: list[Reach], snapshot: Snapshot | None, rebuilt_line: int) -> bool:
    """Whether a replay from the snapshot needs entries from before a rebuild, of which there are none."""
    begin = -1 if snapshot is None else snapshot.position
    return any(reach.line < rebuilt_line and reach.position > begin for reach in reaches)


def _lost(connection: Connection, machine_id: int, seq: int) -> PointUnreachable:
    kept = [one.generation for one in saves.all_kept(connection, machine_id) if one.quiescent]
    return PointUnreachable(
        f"Instruction {seq} cannot be reached: the log before it was lost with the database.",
        hint=_hint([Point(generation=generation) for generation in kept[:2]]),
    )


def _what_ran(snapshot: Snapshot) -> str:
    if snapshot.running_seq is not None:
        return f"Instruction {snapshot.running_seq}"
    return f"Command {next((each.seq for each in snapshot.commands if not each.background), None)}"


def _hint(nearest: list[Point]) -> str:
    named = [
        f'{{"seq": {point.seq}}}' if point.seq is not None else f'{{"generation": {point.generation}}}'
        for point in nearest
    ]
    return f"The nearest points: {' and '.join(named)}." if named else "There is no other point near it."
