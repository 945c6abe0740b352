"""Recoveries: what they leave behind, and how often they were tried.

Condition of docs/protocol: UNSENT_WAITS.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, func, or_, update

from torpor_api.ledger import file_changes, holds, lines, notices, saves
from torpor_api.ledger.lines import Reach
from torpor_api.ledger.moments import now
from torpor_api.ledger.results import to_columns
from torpor_api.ledger.schema import entries, machines
from torpor_worker.ledger import EndedBy, Forgone, Hold, InstructionResult


def forgo(connection: Connection, session: str | None, hold: Hold, forgone: Forgone) -> Hold:
    """See `Ledger.forgo`."""
    machine_id = holds.held(connection, session, hold)
    behind = and_(entries.c.machine_id == machine_id, entries.c.position > forgone.position)
    for seq in forgone.cut_short:
        _end(connection, machine_id, seq, forgone.answer, undone=0)
        connection.execute(
            update(entries)
            .where(entries.c.machine_id == machine_id, entries.c.seq == seq)
            .values(ended_by=func.coalesce(entries.c.ended_by, EndedBy.INTERRUPT))
        )
    for seq in forgone.unfinished:
        _end(connection, machine_id, seq, forgone.answer, undone=1)
    connection.execute(
        update(entries)
        .where(behind, or_(entries.c.finished_at.is_(None), entries.c.id.in_(forgone.waiting)))
        .values(position=None, line=None, started_at=None, finished_at=None, attempt=0)
    )
    changes = file_changes.behind(connection, machine_id, forgone.position)
    generation = -1 if hold.head is None else hold.head.generation
    line = lines.begin(connection, machine_id, Reach(hold.line, generation, forgone.position))
    lines.mark_rolled_back(connection, machine_id, hold.line, line)
    file_changes.carry_over(connection, machine_id, changes)
    connection.execute(update(machines).where(machines.c.id == machine_id).values(recovering=1))
    saves.condemn_abandoned(connection, machine_id)
    notices.leave(connection, machine_id, "effects_lost", forgone.message, forgone.seqs)
    fields = {"position": forgone.position, "seqs": forgone.seqs, "line": line}
    notices.record(connection, hold.machine, "forwent", fields)
    return holds.hold_of(connection, machine_id)


def _end(connection: Connection, machine_id: int, seq: int, answer: InstructionResult | None, *, undone: int) -> None:
    """Give an instruction that has no result this one."""
    if answer is None:
        raise ValueError(f"instruction {seq} needs an answer")
    columns = to_columns(answer)
    connection.execute(
        update(entries)
        .where(entries.c.machine_id == machine_id, entries.c.seq == seq, entries.c.finished_at.is_(None))
        .values(
            finished_at=now(),
            error=columns.error,
            error_detail=columns.error_detail,
            runtime_ms=columns.runtime_ms,
            undone=undone,
        )
    )


def count_try(connection: Connection, machine_id: int) -> None:
    """See `Ledger.count_try`."""
    mine = machines.c.id == machine_id
    connection.execute(update(machines).where(mine).values(recovery_tries=machines.c.recovery_tries + 1))


def count_death(connection: Connection, machine_id: int, deaths: int) -> None:
    """See `Ledger.count_death`."""
    connection.execute(update(machines).where(machines.c.id == machine_id).values(recovery_deaths=deaths))


def clear_tries(connection: Connection, machine_id: int, *, deaths: bool) -> None:
    """See `Ledger.clear_tries`."""
    values = {"recovery_tries": 0, "recovery_deaths": 0} if deaths else {"recovery_tries": 0}
    connection.execute(update(machines).where(machines.c.id == machine_id).values(**values))
