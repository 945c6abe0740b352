"""Forks: new machines that begin with a state of another one's, and have a log of their own from there.

Conditions of docs/protocol: FORK_STILL_THERE, FORK_REFERS, FORK_REFERS_TOO, FORK_TAIL_THERE.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert, literal, null, or_, select

from torpor_api.errors import MachineBusy, MachineParked
from torpor_api.ledger import copies, points, running, saves
from torpor_api.ledger import entries as log
from torpor_api.ledger import idempotency as repeats
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.entries import SEED_BYTES, accept_reseed
from torpor_api.ledger.moments import now
from torpor_api.ledger.rollbacks import Unsettled, is_busy
from torpor_api.ledger.rows import Idempotency, Place, Point
from torpor_api.ledger.schema import entries, machine_tags, machines
from torpor_worker.snapshots import Stored

_AS_IT_WAS = (
    "kind",
    "position",
    "timeout_seconds",
    "code",
    "stdin",
    "stdin_open",
    "seed",
    "accepted_at",
    "started_at",
    "finished_at",
    "value",
    "data",
    "error",
    "error_detail",
    "runtime_ms",
    "body",
    "body_bytes",
    "background",
    "ended_behind",
    "exit_code",
    "exit_signal",
)
"""What a fork's copy of an entry has from the original; attempts, output and marks begin anew."""


def place_to_fork(connection: Connection, account: str, machine: str, at: Point | None) -> Place:
    """See `SqlLedger.place_to_fork`."""
    machine_id = machine_rows.identify(connection, account, machine)
    if at is not None:
        return points.place(connection, machine_id, at)
    row = connection.execute(select(machines).where(machines.c.id == machine_id)).one()
    if row.parked_reason is not None:
        raise MachineParked(
            f"The machine is parked: {row.parked_reason}", hint="Say `at` which generation it is to be forked."
        )
    if is_busy(connection, machine_id):
        return _newest_at_rest(connection, machine_id)
    head = points.complete_head(connection, machine_id, but_reseeds=True)  # forks have their own
    if head is None:
        raise Unsettled
    return Place(head, row.line, head.position, [])


def _newest_at_rest(connection: Connection, machine_id: int) -> Place:
    """The newest state of a busy machine in which nothing ran. Raises `MachineBusy` if none is saved."""
    kept = [one for one in saves.line_of_descent(connection, machine_id) if one.quiescent]
    if not kept:
        raise MachineBusy(
            "The machine has unfinished instructions, and no state before them is saved.",
            hint="Wait for them, or say `at` which `seq` it is to be forked.",
        )
    newest = kept[0]
    mine = entries.c.machine_id == machine_id
    behind = or_(entries.c.position.is_(None), entries.c.position > newest.position)
    lacks = connection.scalars(
        select(entries.c.seq)
        .where(mine, behind, entries.c.seq.is_not(None), entries.c.rolled_back == 0)
        .order_by(entries.c.seq)
    )
    place = points.place(connection, machine_id, Point(generation=newest.generation))
    return replace(place, lacks=list(lacks))


def fork(
    connection: Connection,
    account: str,
    machine: str,
    place: Place,
    stored: dict[str, Stored | None],
    *,
    tags: dict[str, str] | None,
    answer: dict[str, Any],
    idempotency: Idempotency | None,
) -> None:
    """See `SqlLedger.fork`."""
    parent_id = machine_rows.identify(connection, account, machine)
    parent = connection.execute(select(machines).where(machines.c.id == parent_id)).one()
    snapshot = place.snapshot
    if snapshot is not None and saves.snapshot(connection, parent_id, snapshot.generation) is None:
        raise Unsettled
    if log.any_given_up(connection, [entry.id for entry in place.tail]):
        raise Unsettled
    if tags is None:
        kept = select(machine_tags.c.name, machine_tags.c.value).where(machine_tags.c.machine_id == parent_id)
        tags = {row.name: row.value for row in connection.execute(kept)}
    inside = () if snapshot is None else snapshot.commands
    first_seq = max((command.seq + 1 for command in inside), default=0)
    numbered = [entry for entry in place.tail if entry.seq is not None]
    seqs = {entry.id: seq for seq, entry in enumerate(numbered, first_seq)}
    renamed = {entry.seq: seqs[entry.id] for entry in numbered}
    machine_ids: list[int] = []
    for name, copy in stored.items():
        machine_id = connection.scalar(
            insert(machines)
            .values(
                name=name,
                account_id=parent.account_id,
                created_at=now(),
                memory_bytes=parent.memory_bytes,
                idle_seconds=parent.idle_seconds,
                template=parent.template,
                durability=parent.durability,
                recovery=parent.recovery,
                replay_seconds=parent.replay_seconds,
            )
            .returning(machines.c.id)
        )
        if machine_id is None:
            raise AssertionError("an insert returns its row")
        machine_ids.append(machine_id)
        if tags:
            rows = [{"machine_id": machine_id, "name": tag, "value": value} for tag, value in tags.items()]
            connection.execute(insert(machine_tags), rows)
        if snapshot is not None and copy is not None:
            copies.turn_into_save(connection, name, copy.manifest_key)
            saves.begin_with(connection, machine_id, snapshot, copy)
            running.copy_into_fork(connection, parent_id, machine_id, inside)
    for entry in place.tail:
        target = renamed.get(entry.target, entry.target)
        ended_line = 0 if entry.ended_here else running.NOWHERE
        _copy(connection, entry.id, machine_ids, seqs.get(entry.id), target, ended_line)
    next_seq = first_seq + len(numbered)
    for machine_id in machine_ids:
        seed = secrets.token_bytes(SEED_BYTES)
        accept_reseed(connection, machine_id, seed, position=place.position + 1, next_seq=next_seq)
    if idempotency is not None:
        repeats.bind(connection, parent.account_id, idempotency, answer=answer)


def _copy(
    connection: Connection, entry_id: int, machine_ids: list[int], seq: int | None, target: int | None, ended_line: int
) -> None:
    """Let all forks have an entry of their own, in one statement: while this lasts nobody else can write."""
    new = {"seq": seq, "line": 0, "attempt": 1, "target": target, "ended_line": ended_line}
    columns = [null() if value is None else literal(value) for value in new.values()]
    query = (
        select(machines.c.id, *columns, *(entries.c[name] for name in _AS_IT_WAS))
        .select_from(entries.join(machines, machines.c.id.in_(machine_ids)))
        .where(entries.c.id == entry_id)
    )
    connection.execute(insert(entries).from_select(["machine_id", *new, *_AS_IT_WAS], query))
