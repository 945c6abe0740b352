"""Gives up the generations that nothing needs any more, a few in a transaction.

Condition of docs/protocol: HEAD_KEPT.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, and_, bindparam, or_, select

from torpor_api.ledger import saves
from torpor_api.ledger.database import Statement
from torpor_api.ledger.lines import descent
from torpor_api.ledger.moments import now
from torpor_api.ledger.schema import machines, snapshots
from torpor_api.ledger.schema import saves as save_rows
from torpor_snapshotter.retention import Generation, superseded, thinned_before

CONDEMNED_AT_ONCE: Final = 32
"""Generations that one transaction gives up: others wait for it, and the rest can wait for the next."""

OLD_ONES: Final = 512
"""Generations from hours that are over which are looked at together, the newest of them: what is kept of years."""
NEW_ONES: Final = 64

# A machine may have tens of thousands of generations of the last hours, which are all kept. Whatever is left out of
# what `superseded` looks at is kept, and so is what it would be compared with: any part of them gives a part of the
# answer, and none that is wrong.
_COLUMNS = (
    save_rows.c.generation,
    save_rows.c.manifest_key,
    snapshots.c.created_at,
    and_(snapshots.c.running_seq.is_(None), snapshots.c.awaited_commands == 0),
    snapshots.c.line,
    snapshots.c.pinned + snapshots.c.base,
)
_OF_A_SAVE = and_(snapshots.c.machine_id == save_rows.c.machine_id, snapshots.c.generation == save_rows.c.generation)
_NEWEST = Statement(
    select(*_COLUMNS)
    .outerjoin(snapshots, _OF_A_SAVE)
    .where(save_rows.c.machine_id == bindparam("machine"))
    .order_by(save_rows.c.generation.desc())
    .limit(NEW_ONES)
)
"""With nulls from `created_at` on for a save that is no snapshot."""
_OLD = Statement(
    select(*_COLUMNS)
    .join(snapshots, _OF_A_SAVE)
    .where(snapshots.c.machine_id == bindparam("machine"), snapshots.c.created_at < bindparam("before"))
    .order_by(snapshots.c.created_at.desc())
    .limit(OLD_ONES)
)
_IN_THE_MIDDLE = Statement(
    select(*_COLUMNS)
    .join(snapshots, _OF_A_SAVE)
    .where(
        snapshots.c.machine_id == bindparam("machine"),
        or_(snapshots.c.running_seq.is_not(None), snapshots.c.awaited_commands > 0),
    )
    .limit(OLD_ONES)
)


def thin_out(connection: Connection, machine_id: int) -> bool:
    """Condemn the oldest of a machine's superfluous generations; whether there are more of them."""
    garbage = _superfluous(connection, machine_id)
    for generation, manifest_key in garbage[:CONDEMNED_AT_ONCE]:
        saves.condemn(connection, machine_id, generation, manifest_key)
    return len(garbage) > CONDEMNED_AT_ONCE


def due(connection: Connection, after: int, limit: int) -> tuple[list[int], int]:
    """Of the next `limit` machines behind id `after` those with superfluous generations; the last one's id, 0: no more.

    Parked machines are left alone: any of their generations may be the one that their user wants.
    """
    query = select(machines.c.id).where(
        machines.c.id > after, machines.c.head_generation.is_not(None), machines.c.parked_reason.is_(None)
    )
    ids = list(connection.scalars(query.order_by(machines.c.id).limit(limit)))
    some = [machine_id for machine_id in ids if _superfluous(connection, machine_id)]
    return some, ids[-1] if len(ids) == limit else 0


def _superfluous(connection: Connection, machine_id: int) -> list[tuple[int, str]]:
    """Generations with the keys of their manifests, oldest first."""
    machine = connection.execute(
        select(machines.c.line, machines.c.head_generation).where(machines.c.id == machine_id)
    ).first()
    if machine is None or machine.head_generation is None:
        return []
    head = machine.head_generation
    moment = now()
    found = [
        *_NEWEST.run(connection, machine=machine_id).fetchall(),
        *_OLD.run(connection, machine=machine_id, before=thinned_before(moment)).fetchall(),
        *_IN_THE_MIDDLE.run(connection, machine=machine_id).fetchall(),
    ]
    rows = sorted({row[0]: row for row in found}.values())
    limits = {one.line: one.generation for one in descent(connection, machine_id, machine.line, generation=head)}
    garbage = superseded(
        (
            Generation(number, bool(quiescent), created_at, number <= limits.get(line, -1), line, bool(kept))
            for number, _, created_at, quiescent, line, kept in rows
            if created_at is not None
        ),
        moment,
    )
    return [
        (number, key)
        for number, key, created_at, *_ in rows
        # What was begun before the head and is no snapshot yet never will be: its commit would be refused.
        if number in garbage or (created_at is None and number < head)
    ]
