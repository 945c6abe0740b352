"""Rollbacks: a machine goes on from an earlier point, on a new line; what it did since stays in its history.

Condition of docs/protocol: ROLL_BACK_FROM_COMPLETE_HEAD.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, exists, select

from torpor_api.errors import MachineBusy
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger import lines, notices, parked, points, running, saves
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.lines import Reach
from torpor_api.ledger.rows import Idempotency, Point, RolledBack
from torpor_api.ledger.schema import entries, machines


class Unsettled(Exception):
    """The machine is not asleep, or its head lacks something that it did: wake it, let it sleep, and try again."""


def is_busy(connection: Connection, machine_id: int) -> bool:
    """Whether the machine has an unfinished entry, but for commands that sleep with it."""
    unfinished = exists().where(entries.c.machine_id == machine_id, running.IN_THE_WAY)
    return bool(connection.scalar(select(unfinished)))


def refuse_busy(connection: Connection, machine_id: int) -> None:
    """Raise `MachineBusy` if the machine has an unfinished entry."""
    if is_busy(connection, machine_id):
        raise MachineBusy("The machine has unfinished instructions.", hint="Wait for them, or interrupt them.")


def roll_back(
    connection: Connection,
    account: str,
    machine: str,
    to: Point,
    *,
    remember: Callable[[RolledBack], dict[str, Any]],
    idempotency: Idempotency | None,
) -> RolledBack:
    """See `SqlLedger.roll_back`."""
    machine_id = machine_rows.identify(connection, account, machine)
    refuse_busy(connection, machine_id)
    row = connection.execute(select(machines).where(machines.c.id == machine_id)).one()
    head = points.complete_head(connection, machine_id)
    # A parked machine has no process to save: what it was is not a state that it could be brought back to.
    if row.session_id is not None or (head is None and row.parked_reason is None):
        raise Unsettled
    place = points.place(connection, machine_id, to)
    generation = None if place.snapshot is None else place.snapshot.generation
    undo = None if head is None or row.parked_reason is not None else head.generation
    line = lines.begin(
        connection, machine_id, Reach(place.line, -1 if generation is None else generation, place.position), undo=undo
    )
    running.end_those_left(
        connection, machine_id, row.line, line, "The machine was rolled back to before this was started."
    )
    lost = lines.mark_rolled_back(connection, machine_id, row.line, line)
    parked.forgive(connection, machine_id, -1 if generation is None else generation)
    saves.condemn_abandoned(connection, machine_id)
    notices.record(connection, machine, "rolled_back", {"generation": generation, "line": line, "undo": undo})
    replayed = [entry.seq for entry in place.tail if entry.seq is not None]
    done = RolledBack(generation, line, undo, lost, replayed, stays_awake=row.idle_seconds is None)
    if idempotency is not None:
        repeats.bind(connection, row.account_id, idempotency, answer=remember(done))
    return done
