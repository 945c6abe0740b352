"""Commands that run in snapshots, and what becomes of them when machines are rolled back or forked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, and_, insert, literal, or_, select, update

from torpor_api.ledger.lines import NO_LIMIT, descent
from torpor_api.ledger.moments import now
from torpor_api.ledger.results import failure
from torpor_api.ledger.schema import entries, snapshot_commands
from torpor_worker.ledger import EntryKind, RunningCommand, Snapshot

NOWHERE = -1
"""A line that no machine has: an end on it belongs to no state."""

SLEEPS = and_(entries.c.kind == EntryKind.COMMAND, entries.c.background == 1, entries.c.started_at.is_not(None))
"""A command in the background that was started: it sleeps with its machine, and nobody waits for it."""
IN_THE_WAY = and_(entries.c.finished_at.is_(None), ~SLEEPS)
"""What is unfinished, and keeps a machine awake."""


def write(connection: Connection, machine_id: int, snapshot: Snapshot) -> None:
    """Remember what runs in a snapshot."""
    for command in snapshot.commands:
        connection.execute(
            insert(snapshot_commands).values(
                machine_id=machine_id,
                generation=snapshot.generation,
                seq=command.seq,
                attempt=command.attempt,
                used_seconds=command.used_seconds,
                output_offset=command.output_offset,
                said_bytes=command.said_bytes,
                background=int(command.background),
                again=int(command.again),
            )
        )


def read(connection: Connection, machine_id: int, generation: int | None = None) -> dict[int, list[RunningCommand]]:
    """What runs in each snapshot of a machine, or in one of them."""
    query = select(snapshot_commands).where(snapshot_commands.c.machine_id == machine_id)
    if generation is not None:
        query = query.where(snapshot_commands.c.generation == generation)
    found: dict[int, list[RunningCommand]] = defaultdict(list)
    for row in connection.execute(query.order_by(snapshot_commands.c.seq)):
        found[row.generation].append(
            RunningCommand(
                row.seq,
                row.attempt,
                row.used_seconds,
                row.output_offset,
                row.said_bytes,
                bool(row.background),
                bool(row.again),
            )
        )
    return found


def in_the_way_of(machine_id: int, snapshot: Snapshot, *, draining: bool) -> ColumnElement[bool]:
    """A condition on entries: what must not be there when a machine is let go as this snapshot.

    What runs in the snapshot must run still; beside it nothing may but, while draining, what waits.
    """
    of_machine = entries.c.machine_id == machine_id
    inside = [command.seq for command in snapshot.commands if not command.again]
    if snapshot.running_seq is not None:
        inside.append(snapshot.running_seq)
    is_inside = entries.c.seq.in_(inside) if inside else literal(False)
    unfinished = and_(entries.c.finished_at.is_(None), ~is_inside)
    if draining:
        unfinished = and_(unfinished, entries.c.started_at.is_not(None))
    over = and_(is_inside, entries.c.finished_at.is_not(None))
    return and_(of_machine, or_(unfinished, over))


def end_those_left(connection: Connection, machine_id: int, before: int, after: int, why: str) -> None:
    """Commands that run on line `before`, and that line `after` does not have, end with that."""
    limits = {reach.line: reach.position for reach in descent(connection, machine_id, after)}
    result = failure("RolledBack", why)
    mine = and_(entries.c.machine_id == machine_id, entries.c.finished_at.is_(None), SLEEPS)
    for row in connection.execute(select(entries.c.id, entries.c.line, entries.c.position).where(mine)).all():
        if row.position > limits.get(row.line, -1):
            connection.execute(
                update(entries)
                .where(entries.c.id == row.id)
                .values(
                    finished_at=now(),
                    error=result.error,
                    error_detail=result.error_detail,
                    runtime_ms=0,
                    ended_behind=NO_LIMIT,
                    ended_line=before,
                )
            )


def is_ended(ended_line: int | None, ended_behind: int | None, limits: Mapping[int, int]) -> bool:
    """Whether an end belongs to a state that has lines up to these positions behind it."""
    return ended_line is None or ended_behind is None or ended_behind < limits.get(ended_line, -1)


def copy_into_fork(
    connection: Connection, parent_id: int, machine_id: int, commands: Collection[RunningCommand]
) -> None:
    """Let a fork's log have the commands that run in its beginning; what they said is the other machine's."""
    copied = ("kind", "seq", "position", "timeout_seconds", "code", "background", "accepted_at", "started_at")
    for command in commands:
        known = and_(entries.c.machine_id == parent_id, entries.c.seq == command.seq)
        query = select(literal(machine_id), literal(0), literal(1), *(entries.c[name] for name in copied)).where(known)
        connection.execute(insert(entries).from_select(["machine_id", "line", "attempt", *copied], query))
        connection.execute(
            insert(snapshot_commands).values(
                machine_id=machine_id,
                generation=0,
                seq=command.seq,
                attempt=1,
                used_seconds=command.used_seconds,
                output_offset=0,
                said_bytes=command.said_bytes,
                background=1,
            )
        )
