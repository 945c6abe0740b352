"""Lines of a machine: which of its entries and generations a state has behind it.

A recovery or a rollback begins a line. Of its parent it has the generations up to one number and the entries up to one
position; what the parent has beyond these is another future, which no replay of the new line sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from torpor_api.ledger.schema import entries, lines, machines

NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Reach:
    """What a state has of one line: generations and positions up to these, both included."""

    line: int
    generation: int
    position: int


def descent(
    connection: Connection, machine_id: int, line: int, *, generation: int = NO_LIMIT, position: int = NO_LIMIT
) -> list[Reach]:
    """A state on `line`, with no later generation or position than these, and what it has of the lines before."""
    begins = {row.line: row for row in connection.execute(select(lines).where(lines.c.machine_id == machine_id))}
    reaches = [Reach(line, generation, position)]
    while (begin := begins.get(line)) is not None:
        line = begin.parent
        generation = min(generation, -1 if begin.generation is None else begin.generation)
        position = min(position, begin.position)
        reaches.append(Reach(line, generation, position))
    return reaches


def rebuilt_from(connection: Connection, machine_id: int, rebuilt_line: int | None) -> int | None:
    """The generation that a rebuild of the database made the head: `rebuilt_line` begins with it. None without one."""
    if rebuilt_line is None:
        return None
    begin = select(lines.c.generation).where(lines.c.machine_id == machine_id, lines.c.line == rebuilt_line)
    return connection.scalar(begin)


def asked_position(connection: Connection, machine_id: int, line: int) -> int:
    """The last position that the newest rollback before `line` has kept, -1 if there was none.

    What lies before it is in the machine's state because somebody wished it so, and not only until the next crash.
    """
    begins = {row.line: row for row in connection.execute(select(lines).where(lines.c.machine_id == machine_id))}
    while (begin := begins.get(line)) is not None:
        if begin.position != NO_LIMIT:
            return int(begin.position)
        line = begin.parent
    return -1


def before_recoveries(connection: Connection, machine_id: int, line: int) -> list[Reach]:
    """What a machine on `line` would have behind it if no recovery since its last rollback had set anything aside."""
    begins = {row.line: row for row in connection.execute(select(lines).where(lines.c.machine_id == machine_id))}
    chain = []
    while (begin := begins.get(line)) is not None and begin.position == NO_LIMIT:
        chain.append(Reach(line, NO_LIMIT, NO_LIMIT))
        line = begin.parent
    return [*chain, *descent(connection, machine_id, line)]


def begin(connection: Connection, machine_id: int, reach: Reach, *, undo: int | None = None) -> int:
    """Put the machine on a new line that has this much of its parent; the line. Raises the epoch: holds have passed.

    `undo` is the generation that a rollback begins the line from, so that it can be taken back.
    """
    generation = reach.generation if reach.generation >= 0 else None
    line = connection.scalar(
        update(machines)
        .where(machines.c.id == machine_id)
        .values(
            head_generation=generation,
            line=machines.c.next_line,
            next_line=machines.c.next_line + 1,
            epoch=machines.c.epoch + 1,
            ready=0,
        )
        .returning(machines.c.line)
    )
    if line is None:
        raise AssertionError("the machine exists")
    connection.execute(
        insert(lines).values(
            machine_id=machine_id,
            line=line,
            parent=reach.line,
            generation=generation,
            position=reach.position,
            undo=undo,
        )
    )
    return int(line)


def mark_rolled_back(connection: Connection, machine_id: int, before: int, after: int) -> list[int]:
    """Mark the entries that line `after` lacks, and unmark those that it has again.

    All entries are marked as line `before` had it. Gives the seqs that `after` lacks and `before` had.
    """
    had, has = descent(connection, machine_id, before), descent(connection, machine_id, after)
    positions = {reach.line: reach.position for reach in had}
    shared = next((reach for reach in has if reach.line in positions), None)
    beyond = -1 if shared is None else min(shared.position, positions[shared.line])
    mine = entries.c.machine_id == machine_id
    lost = connection.execute(
        update(entries)
        .where(mine, entries.c.position > beyond, entries.c.rolled_back == 0)
        .values(rolled_back=1)
        .returning(entries.c.seq, entries.c.line, entries.c.position)
    ).all()
    for reach in has:
        if reach.position <= beyond:
            break
        connection.execute(
            update(entries)
            .where(
                mine,
                entries.c.line == reach.line,
                entries.c.position > beyond,
                entries.c.position <= reach.position,
            )
            .values(rolled_back=0)
        )
    limits = {reach.line: reach.position for reach in has}
    return sorted(row.seq for row in lost if row.seq is not None and row.position > limits.get(row.line, -1))
