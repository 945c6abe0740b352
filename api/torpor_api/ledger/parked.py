"""Ways out for a machine whose recovery gave up. None of them takes any of its generations out of reach."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from torpor_api.errors import InstructionNotFound, InvalidRequest, MachineNotParked, SnapshotNotFound
from torpor_api.ledger import entries as log
from torpor_api.ledger import lines, notices, saves
from torpor_api.ledger import machines as machine_rows
from torpor_api.ledger.lines import NO_LIMIT, Reach
from torpor_api.ledger.rows import Point, Unparked
from torpor_api.ledger.schema import entries, machines, snapshots
from torpor_worker.ledger import Snapshot


def retry(connection: Connection, account: str, machine: str) -> Unparked:
    """Let it be recovered once more, from its newest generation in which nothing ran and the log behind that.

    Raises `MachineNotFound`, `MachineNotParked`.
    """
    row = _parked(connection, account, machine)
    return _again(connection, row, "retry", undone=None)


def skip(connection: Connection, account: str, machine: str, seq: int | None) -> Unparked:
    """Undo an instruction, None: the one that recovery blames, and let it be recovered from before that.

    Raises as `retry` does, `InstructionNotFound`, and `InvalidRequest` if it is not known which is to blame.
    """
    row = _parked(connection, account, machine)
    seq = row.parked_seq if seq is None else seq
    if seq is None:
        raise InvalidRequest(
            "seq: it is not known which instruction is to blame, so name the one that is to be skipped."
        )
    try:
        log.undo(connection, row.id, seq)
    except ValueError:
        raise InstructionNotFound from None
    position = connection.scalar(select(entries.c.position).where(entries.c.machine_id == row.id, entries.c.seq == seq))
    return _again(connection, row, "skip", undone=seq, before=position)


def newest_usable(connection: Connection, account: str, machine: str) -> Point:
    """The newest generation of a parked machine in which nothing ran and that no recovery has set aside.

    Raises as `retry` does, and `SnapshotNotFound` if there is none.
    """
    row = _parked(connection, account, machine)
    for snapshot in _of_its_history(connection, row):
        if snapshot.quiescent and not snapshot.set_aside:
            return Point(generation=snapshot.generation)
    raise SnapshotNotFound(
        "Recovery has set every snapshot of the machine aside.",
        hint="Name the `generation` to go back to, or try `retry`, `skip` or `export`.",
    )


def forgive(connection: Connection, machine_id: int, generation: int | None) -> None:
    """Forget why a machine was parked, and what was held against a generation; None: against all of them."""
    connection.execute(
        update(machines)
        .where(machines.c.id == machine_id)
        .values(parked_reason=None, parked_seq=None, recovery_tries=0, recovery_deaths=0)
    )
    forgiven = update(snapshots).where(snapshots.c.machine_id == machine_id, snapshots.c.set_aside == 1)
    if generation is not None:
        forgiven = forgiven.where(snapshots.c.generation == generation)
    connection.execute(forgiven.values(set_aside=0))


def _parked(connection: Connection, account: str, machine: str) -> Row[Any]:
    machine_id = machine_rows.identify(connection, account, machine)
    row = connection.execute(select(machines).where(machines.c.id == machine_id)).one()
    if row.parked_reason is None:
        raise MachineNotParked
    return row


def _again(
    connection: Connection, row: Row[Any], how: str, *, undone: int | None, before: int | None = None
) -> Unparked:
    usable = (one for one in _of_its_history(connection, row) if one.quiescent)
    newest = next((one for one in usable if before is None or one.position < before), None)
    reach = Reach(row.line, -1, NO_LIMIT) if newest is None else Reach(newest.line, newest.generation, NO_LIMIT)
    line = lines.begin(connection, row.id, reach)
    lines.mark_rolled_back(connection, row.id, row.line, line)
    forgive(connection, row.id, None)
    saves.condemn_abandoned(connection, row.id)
    generation = None if newest is None else newest.generation
    notices.record(connection, row.name, how, {"generation": generation, "line": line, "undone": undone})
    return Unparked(generation, line, undone)


def _of_its_history(connection: Connection, row: Row[Any]) -> list[Snapshot]:
    """What the machine had when the recovery that gave up began, newest first."""
    return saves.of_reach(connection, row.id, lines.before_recoveries(connection, row.id, row.line))
